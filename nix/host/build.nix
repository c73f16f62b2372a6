# nixpkgs' trivial builders. Builders run in the machine's bash, without a sandbox, with its
# coreutils and no environment besides the derivation's.
{ system }:
let
  pathOf = inputs: builtins.concatStringsSep "" (map (input: "${input}/bin:") inputs);

  runCommand =
    name: attrs: buildCommand:
    let
      result = derivation (
        removeAttrs attrs [ "meta" ]
        // {
          inherit name system buildCommand;
          builder = "/bin/bash";
          args = [
            "-euc"
            ''eval "$buildCommand"''
          ];
          outputs = [ "out" ]; # required by `nix develop`
          PATH = "${pathOf (attrs.nativeBuildInputs or [ ])}/usr/bin:/bin";
        }
      );
    in
    result // { meta = attrs.meta or { }; };
in
{
  inherit runCommand;

  mkShellNoCC =
    { packages, shellHook }:
    runCommand "nix-shell" {
      inherit shellHook;
      stdenv = ./stdenv; # `nix develop` sources its file `setup`
      nativeBuildInputs = packages;
    } ''echo "this is for nix develop" >&2; exit 1'';

  # Unlike that of nixpkgs, it does not run shellcheck, which slows a start; the check `packages` does.
  writeShellApplication =
    {
      name,
      text,
      runtimeInputs ? [ ],
      meta ? { },
    }:
    runCommand name
      {
        inherit meta;
        script = ''
          #!/bin/bash
          set -euo pipefail
          export PATH="${pathOf runtimeInputs}$PATH"

          ${text}
        '';
      }
      ''
        mkdir -p $out/bin
        printf %s "$script" >$out/bin/${name}
        chmod +x $out/bin/${name}
      '';
}
