# nixpkgs' trivial builders. A builder here is the machine's bash, unsandboxed; besides what it is
# given it has the machine's coreutils, and no environment.
{ lib, system }:
let
  runCommand =
    name: attrs: buildCommand:
    let
      meta = attrs.meta or { };
      inputs = attrs.nativeBuildInputs or [ ];
      result = derivation (
        removeAttrs attrs [ "meta" ]
        // {
          inherit name system buildCommand;
          builder = "/bin/bash";
          args = [
            "-euc"
            ''eval "$buildCommand"''
          ];
          outputs = [ "out" ]; # `nix develop` wants it said
          PATH = builtins.concatStringsSep ":" (map (input: "${input}/bin") inputs ++ [ "/usr/bin:/bin" ]);
        }
      );
    in
    result // { inherit meta; };
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

  # Like nixpkgs' it does not build when shellcheck finds something.
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
          set -o errexit
          set -o nounset
          set -o pipefail

          export PATH="${lib.makeBinPath runtimeInputs}:$PATH"

          ${text}
        '';
      }
      ''
        mkdir -p $out/bin
        printf %s "$script" >$out/bin/${name}
        chmod +x $out/bin/${name}
        shellcheck $out/bin/${name}
      '';
}
