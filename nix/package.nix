# The code for running and for testing, and its Python packages.
{ lib, pkgs }:
let
  inherit (lib) fileset;

  code = [
    ../nix/host/pinned.json # for doctor
    ../devtools
    ../process-compose.yaml
    ../process-compose.cluster.yaml
    (fileset.fileFilter (file: !file.hasExt "md") ../services)
  ];
  sourceOf =
    files:
    fileset.toSource {
      root = ../.;
      fileset = fileset.unions files;
    };

  # Each service.toml, by folder.
  services = lib.mapAttrs (folder: _: lib.importTOML (../services + "/${folder}/service.toml")) (
    lib.filterAttrs (folder: _: builtins.pathExists (../services + "/${folder}/service.toml")) (
      builtins.readDir ../services
    )
  );
  shared = (lib.importTOML ../services/common/packages.toml).packages;
  packagesOf = lib.mapAttrs (
    _: service: if service ? packages then shared ++ service.packages else [ ]
  ) services;

  # For the commands of devtools/.
  devPackages = [
    "httpx"
    "jinja2"
    "nicegui"
    "opentelemetry-proto"
    "psutil"
    "python-dotenv"
    "pyyaml"
    "watchfiles"
  ];

  choose = names: ps: map (name: ps.${name}) names;
  runtimePackages = choose (lib.unique (devPackages ++ lib.concatLists (lib.attrValues packagesOf)));

  testPackages = ps: [
    ps.hypothesis
    ps.mypy
    ps.pygal
    ps.pytest
    ps.pytest-timeout
    ps.pytest-xdist
    ps.schemathesis
    ps.selenium
    ps.shtab
    ps.types-psutil
    ps.types-pyyaml
  ];

  # The benchmark and the job queues that it compares; nixpkgs lacks some of them.
  benchPackages =
    ps:
    [
      ps.celery
      ps.dramatiq
      ps.huey
      ps.pygal
      ps.rq
    ]
    ++ lib.optional (ps ? saq) ps.saq
    ++ lib.optional (ps ? taskiq && ps ? taskiq-redis) ps.taskiq-redis;

  python = pkgs.python3.withPackages runtimePackages;

  # Compiled at build time: the store is read-only, and start-up time matters.
  compiled =
    name: folders: files:
    pkgs.runCommand name { nativeBuildInputs = [ python ]; } ''
      cp -r ${sourceOf files} $out
      chmod -R u+w $out
      cd $out
      python -m compileall -q --invalidation-mode unchecked-hash ${folders}
    '';

  # Runs a module of devtools, in the reduced environment that devtools/launch.py makes. In POSIX mode no
  # function that the user exported overrides `exec`.
  launch = module: ''
    POSIXLY_CORRECT=yes
    unset PYTHONEXECUTABLE __PYVENV_LAUNCHER__
    exec python -I -X utf8 ${launcher}/devtools/launch.py ${module} "$@"
  '';
  launcher = sourceOf [
    ../devtools/launch.py
    ../devtools/locate.py
  ];

  processCompose = pkgs.writeShellApplication {
    name = "process-compose";
    text = launch "devtools.process_compose ${pkgs.process-compose}/bin/process-compose";
  };
in
{
  inherit launch python;
  pythonForTests = pkgs.python3.withPackages (ps: runtimePackages ps ++ testPackages ps);
  pythonForBench = pkgs.python3.withPackages (ps: runtimePackages ps ++ benchPackages ps);

  # Programs on the PATH of the stack's processes and of `logs`, besides Python.
  programs = [
    pkgs.bash
    pkgs.caddy
    pkgs.coreutils
    pkgs.curl
    pkgs.lnav
    pkgs.redis
    processCompose
  ];

  # The inputs of each check: a test of one service does not rerun those of the whole stack.
  checkedSources =
    let
      common = code ++ [
        ../.vscode/launch.json
        ../bench
        ../docs/configuration.md
        ../flake.lock # for doctor
        ../pyproject.toml
        ../tests/cluster.py
        ../tests/conftest.py
        ../tests/devtools/console/traces.py
        ../tests/http_service.py
        ../tests/receiver.py
        ../tests/stack/stack.py
        ../tests/support.py
      ];
      wide = common ++ [
        ../.ci
        ../.env.example
        ../.envrc
        ../deploy
        ../nix
        ../nixw
      ];
      all = wide ++ [
        ../.gitignore
        ../CONTRIBUTING.md
        ../README.md
        ../docs
        ../flake.nix
        ../services
        ../tests
      ];
      testsIn = map (name: ../tests + "/${name}");
      apart =
        lib.genAttrs [ "lint" "pages" "new" ] (_: all)
        // lib.genAttrs [ "stack" "chaos" "images" "browser" ] (name: common ++ testsIn [ name ]);
      others = removeAttrs (builtins.readDir ../tests) (lib.attrNames apart);
    in
    lib.mapAttrs (_: sourceOf) (apart // { unit = wide ++ testsIn (lib.attrNames others); });

  # A syntax error shows in the log of its service; `nix run . -- down` works all the same.
  code = compiled "platform-code" "devtools services || true" code;

  # Starts stacks with the tests' helpers.
  bench = compiled "platform-bench" "bench devtools services tests" (
    code
    ++ [
      ../bench
      ../tests/http_service.py
      ../tests/receiver.py
      ../tests/support.py
      ../tests/stack/stack.py
    ]
  );

  # For a container image: only the code and packages of one folder of services/.
  inherit services;
  codeOf =
    folder:
    compiled "platform-${folder}" "services" [
      ../services/__init__.py
      ../services/common
      (../services + "/${folder}")
    ];
  pythonOf = folder: pkgs.python3.withPackages (choose packagesOf.${folder});
}
