# shellcheck shell=bash
# Prints why this user cannot use the state folder $1, with the remedy; nothing if they can. Run by
# locate.sh and by the commands of devtools.
set -euo pipefail
case $1 in /*) state=$1 ;; *) state=$PWD/$1 ;; esac

# A folder of others, like /tmp, must not get mode 700, and in one with other files, like a private home,
# a start replaces `environment` and `reset` removes `logs`.
found=$(ls -Ap "$state/" 2>/dev/null || true)
# Not for root, which can write everywhere, and in some containers owns none of the files.
foreign=
if [ "$(id -u)" -ne 0 ]; then
  # Before the first start the folder is missing, which must not end a shell with pipefail.
  foreign=$(find "$state" ! -user "$(id -u)" 2>/dev/null | head -n 1 || true)
fi
made_in=$state
until [ -e "$made_in" ] || [ -z "$made_in" ]; do made_in=${made_in%/*}; done

if [ -n "$found" ] && ! grep -qxE 'version|jwt-secret|nixw/|process-compose/' <<<"$found"; then
  echo "$state has unrelated files: set PLATFORM_STATE to a new folder"
elif [ -n "$foreign" ]; then
  echo "$foreign belongs to another user: after a start with sudo take it back with" \
    "\`sudo chown -R $(id -u) \"$state\"\`; in another user's checkout set PLATFORM_STATE to your own folder"
elif [ -e "$state" ] && [ ! -d "$state" ]; then
  echo "$state is not a folder: move it away, or set PLATFORM_STATE to your own folder"
elif ! { [ -d "${made_in:=/}" ] && [ -w "$made_in" ] && [ -x "$made_in" ]; }; then
  echo "$state cannot be written: give write permission, or set PLATFORM_STATE to your own folder"
fi
