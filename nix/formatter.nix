# `nix fmt [-- --check] [PATH…]`: every format that the lint check reads. nixfmt is not in every package
# set; its absence is reported.
{ lib, pkgs }:
pkgs.writeShellApplication {
  name = "format";
  runtimeInputs = [
    pkgs.caddy
    pkgs.ruff
  ]
  ++ lib.optional (pkgs ? nixfmt) pkgs.nixfmt;
  text = ''
    check=() paths=() code=0
    for word in "$@"; do
      case $word in
        --check) check=(--check) ;;
        -*) echo "usage: nix fmt [-- --check] [PATH…]" >&2 && exit 2 ;;
        *) paths+=("$word") ;;
      esac
    done
    [ "''${#paths[@]}" -gt 0 ] || paths=(.)
    # run PATTERN COMMAND…: on the files of this name, when there are any; no hidden folders.
    run() {
      find "''${paths[@]}" -name '.?*' -prune -o -type f -name "$1" -print0 | xargs -0 -r "''${@:2}" || code=1
    }

    if [ "''${#check[@]}" -eq 0 ]; then
      run '*.py' ruff check --quiet --fix-only
      run Caddyfile caddy fmt --overwrite
    else
      run Caddyfile caddy fmt >/dev/null
    fi
    run '*.py' ruff format --quiet --no-cache "''${check[@]}"
    if command -v nixfmt >/dev/null; then
      run '*.nix' nixfmt "''${check[@]}"
    else
      echo "format: this package set has no nixfmt; Nix files were not checked" >&2
    fi
    exit "$code"
  '';
}
