# The code as it is run and as it is tested, and the Python packages it needs.
{ lib, pkgs }:
let
  inherit (lib) fileset;

  code = [
    ../process-compose.yaml
    ../services
  ];
  sourceOf =
    files:
    fileset.toSource {
      root = ../.;
      fileset = fileset.unions files;
    };

  runtimePackages = ps: [
    ps.argon2-cffi
    ps.cachetools
    ps.falcon
    ps.gunicorn
    ps.hiredis
    ps.httpx
    ps.prometheus-client
    ps.psutil
    ps.pydantic
    ps.pyjwt
    ps.redis
    ps.requests
    ps.stripe
    ps.structlog
  ];
  testPackages = ps: [
    ps.hypothesis
    ps.mypy
    ps.pytest
    ps.pytest-timeout
    ps.pyyaml
    ps.types-psutil
    ps.types-pyyaml
  ];

  python = pkgs.python3.withPackages runtimePackages;
in
{
  inherit python;
  pythonForTests = pkgs.python3.withPackages (ps: runtimePackages ps ++ testPackages ps);

  # What the processes of process-compose.yaml find on PATH besides Python.
  programs = [
    pkgs.bash
    pkgs.caddy
    pkgs.coreutils
    pkgs.curl
    pkgs.process-compose
    pkgs.redis
  ];

  # All that a check reads. The README is among it, for a test that holds its table to the code.
  checkedSource = sourceOf (
    code
    ++ [
      ../.ci
      ../.env.example
      ../.envrc
      ../README.md
      ../flake.lock
      ../flake.nix
      ../nix
      ../nixw
      ../pyproject.toml
      ../tests
    ]
  );

  # Compiled beforehand, because nothing can be written here later and start-up counts.
  code = pkgs.runCommand "platform-code" { nativeBuildInputs = [ python ]; } ''
    cp -r ${sourceOf code} $out
    chmod -R u+w $out
    python -m compileall -q --invalidation-mode unchecked-hash $out/services
  '';
}
