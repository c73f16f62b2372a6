# `nix fmt`: writes every format that the lint check reads. nixfmt is not in every package set, and
# its absence is said rather than passed over.
{ pkgs }:
pkgs.writeShellApplication {
  name = "format";
  runtimeInputs = [
    pkgs.caddy
    pkgs.git
    pkgs.ruff
  ]
  ++ (if pkgs ? nixfmt then [ pkgs.nixfmt ] else [ ]);
  text = ''
    cd "$(git rev-parse --show-toplevel)"
    ruff check --quiet --fix-only .
    ruff format --quiet .
    caddy fmt --overwrite services/router/Caddyfile
    if command -v nixfmt >/dev/null; then
      git ls-files -z '*.nix' | xargs -0 nixfmt
    else
      echo "format: nixfmt is not offered by this package set; the Nix files are left as they are" >&2
    fi
  '';
}
