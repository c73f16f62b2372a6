# `nix fmt [-- --check]`: every format that the lint check reads. nixfmt is not in every package set; its
# absence is reported.
{ lib, pkgs }:
pkgs.writeShellApplication {
  name = "format";
  runtimeInputs = [
    pkgs.caddy
    pkgs.ruff
  ]
  ++ lib.optional (pkgs ? nixfmt) pkgs.nixfmt;
  text = ''
    check=() code=0
    case "$*" in
      "" | .) ;; # some versions of Nix add the dot
      --check) check=(--check) ;;
      *) echo "usage: nix fmt [-- --check]" >&2 && exit 2 ;;
    esac
    until [ -e flake.nix ] || [ "$PWD" = / ]; do cd ..; done
    caddyfile=services/router/Caddyfile
    if [ "''${#check[@]}" -eq 0 ]; then
      ruff check --quiet --fix-only . || code=1
      caddy fmt --overwrite $caddyfile || code=1
    else
      caddy fmt $caddyfile >/dev/null || code=1
    fi
    ruff format --quiet --no-cache "''${check[@]}" . || code=1
    if command -v nixfmt >/dev/null; then
      nixfmt "''${check[@]}" flake.nix nix/*.nix nix/host/*.nix || code=1
    else
      echo "format: this package set has no nixfmt; Nix files were not checked" >&2
    fi
    exit "$code"
  '';
}
