# shellcheck shell=bash
# Prints the assignments that env.sh evaluates, or an error.

# Nix creates a temporary folder for each shell and never removes it. Its parent is the user's own.
if [ -n "$NIX_BUILD_TOP" ]; then
  rmdir "$NIX_BUILD_TOP" 2>/dev/null || true
  printf 'export TMPDIR=%q\nunset NIX_BUILD_TOP TMP TEMP TEMPDIR\n' "${NIX_BUILD_TOP%/*}"
fi

# The checkout: the nearest folder from here upwards that has the stack; else that of the surrounding
# shell, or the folder named by a program from the store.
checkout=$PWD
until [ -f "$checkout/process-compose.yaml" ] && [ -d "$checkout/services" ]; do
  if [ -z "$checkout" ]; then
    checkout=$PLATFORM_CHECKOUT
    if ! mkdir -p "$checkout" 2>/dev/null; then
      echo "platform: neither this folder nor one above it is a checkout: change to one" >&2
      exit 1
    fi
    break
  fi
  checkout=${checkout%/*}
done

# This shell may start another checkout's stack: replace code and state folder that were derived, not those
# of the store or set by the user.
[ "$PLATFORM_CODE" != "$PLATFORM_CHECKOUT" ] || unset PLATFORM_CODE
[ "$PLATFORM_STATE" != "$PLATFORM_CHECKOUT/.state" ] || unset PLATFORM_STATE
PLATFORM_CODE=${PLATFORM_CODE:-$checkout}
case ${PLATFORM_STATE:=.state} in
  /*) ;;
  *) PLATFORM_STATE=$checkout/$PLATFORM_STATE ;;
esac
case $PLATFORM_STATE$PLATFORM_CODE in
  *[\"\\]* | *"{{"* | *"
"*)
    echo "platform: process-compose cannot read a path with {{, a double quote, a backslash or a line break:" \
      "$PLATFORM_STATE" >&2
    exit 1
    ;;
esac
case $PLATFORM_CODE in
  *[,:]*) # PC_CONFIG_FILES and PYTHONPATH are lists
    echo "platform: the checkout's path has a comma or a colon, which separate paths in lists: $PLATFORM_CODE" >&2
    exit 1
    ;;
esac
fault=$("$BASH" "${0%/*}/access.sh" "$PLATFORM_STATE")
if [ -n "$fault" ]; then
  echo "platform: $fault" >&2
  exit 1
fi
mkdir -p "$PLATFORM_STATE/logs" "$PLATFORM_STATE/process-compose"
chmod 700 "$PLATFORM_STATE"

# A Unix socket's path is limited to 104 bytes on macOS and 108 on Linux; beyond that, process-compose
# fails without a reason. The fallback folder is the same in every shell of this user, unlike
# XDG_RUNTIME_DIR, and has mode 700, so that no other user can create a socket there.
real=$(cd -- "$PLATFORM_STATE" && pwd -P) # the same for all symbolic links
PC_SOCKET_PATH=$real/pc.sock
if [ "$(printf %s "$PC_SOCKET_PATH" | wc -c)" -gt 100 ]; then
  sockets=/tmp/platform-$(id -u)
  (umask 077 && mkdir -p "$sockets")
  if [ -n "$(find "$sockets" -prune -type d -user "$(id -u)")" ]; then
    chmod 700 "$sockets"
  else
    echo "platform: $sockets belongs to another user: have it removed, or set PLATFORM_STATE" \
      "to a folder with a path of less than 90 characters" >&2
    exit 1
  fi
  PC_SOCKET_PATH=$sockets/$(printf %s "$real" | cksum | cut -d ' ' -f 1).sock
fi

export_line() { printf 'export %s=%q\n' "$1" "$2"; }
export_line PLATFORM_CHECKOUT "$checkout"
export_line PLATFORM_CODE "$PLATFORM_CODE"
export_line PLATFORM_STATE "$PLATFORM_STATE"
export_line PC_SOCKET_PATH "$PC_SOCKET_PATH"
# By default, process-compose prefers a stray compose.yaml, shares its log between all users of the
# machine, and complains in JSON without a folder for its settings.
export_line PC_CONFIG_FILES "$PLATFORM_CODE/process-compose.yaml"
export_line PC_LOG_FILE "$PLATFORM_STATE/logs/process-compose.log"
export_line PROC_COMP_CONFIG "$PLATFORM_STATE/process-compose"
export_line PYTHONPATH "$PLATFORM_CODE"
# Another Python's standard library would break ours.
echo unset CDPATH PYTHONHOME
