# shellcheck shell=sh
# Nix creates a temporary folder for each shell and never removes it. Its parent is the user's own.
# Sourced by the development shell.

if [ -n "${NIX_BUILD_TOP-}" ]; then
  TMPDIR=${NIX_BUILD_TOP%/*}
  export TMPDIR
  rmdir "$NIX_BUILD_TOP" 2>/dev/null || true
  unset NIX_BUILD_TOP TMP TEMP TEMPDIR
fi
