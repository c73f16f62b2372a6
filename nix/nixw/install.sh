# shellcheck shell=sh
# shellcheck disable=SC2154 # nixw sets them
# Sourced by nixw if a binary cache responds and Nix >= 2.18 is missing.

install_official_nix() {
  if [ -z "${CI:-}" ] && [ -t 0 ] && [ -t 2 ]; then
    printf 'nixw: there is no Nix >= 2.18 here. Install it to /nix with the official installer? [y/N] ' >&2
    read -r reply
    case $reply in [yY]*) ;; *) die "nothing was installed" ;; esac
  fi
  # A daemon needs an init system; macOS supports only the daemon.
  if [ "$(uname)" = Darwin ] || [ -d /run/systemd/system ]; then mode=--daemon; else mode=--no-daemon; fi
  curl --fail --silent --show-error --location https://nixos.org/nix/install --output "$state/installer" ||
    die "the installer could not be downloaded from nixos.org; try again, or install Nix by hand"
  NIX_CONFIG="build-users-group =" sh "$state/installer" "$mode" --yes --no-modify-profile >&2 </dev/null ||
    die "the official installer failed: see above"
  rm "$state/installer"
  find_nix
  nix_is_recent || die "Nix was installed, but is not on PATH: open a new terminal, then try again"
}

install_official_nix
