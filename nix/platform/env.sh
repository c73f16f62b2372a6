# shellcheck shell=bash
# Sets where this checkout's code, state, logs and socket are. Sourced by bin/platform and by the
# development shell, so that both use the same stack.

# Computed by a process with nothing of this shell but these variables: in the development shell, ~/.bashrc
# may have changed `cd`, `ls` and what they print. -p ignores exported functions.
# shellcheck disable=SC2016 # expanded by that process
\eval "$("$BASH" -pc 'env -i PATH="$PATH" PWD="$PWD" NIX_BUILD_TOP="${NIX_BUILD_TOP-}" \
  PLATFORM_CHECKOUT="${PLATFORM_CHECKOUT-}" PLATFORM_CODE="${PLATFORM_CODE-}" \
  PLATFORM_STATE="${PLATFORM_STATE-}" "$BASH" -euo pipefail "$0" || echo false' "${BASH_SOURCE[0]%/*}/locate.sh")"
