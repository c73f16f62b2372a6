# shellcheck shell=bash
# The body of bin/platform, sourced after env.sh.

# Not listening is curl's code 7; any other outcome means that somebody holds the socket.
is_running() {
  [ -S "$PC_SOCKET_PATH" ] || return 1
  local code=0
  curl --silent --max-time 2 --unix-socket "$PC_SOCKET_PATH" --output /dev/null http://pc/live || code=$?
  [ "$code" -ne 7 ]
}

refuse_second_stack() {
  if is_running; then
    echo "platform: a stack of this checkout is already running (its state is in $PLATFORM_STATE)." >&2
    echo "platform: \`attach\` in place of \`up\` shows it, \`down\` stops it." >&2
    exit 1
  fi
}

# What `up` and its flags ask for: attached, detached, or no start at all.
mode_of() {
  local word mode=attached
  for word in "$@"; do
    case $word in
      -D | --detached) mode=detached ;;
      -h | --help | -v | --version | --dry-run) mode=none ;;
    esac
  done
  echo "$mode"
}

start() {
  local mode
  mode=$(mode_of "$@")
  [ "$mode" = none ] || refuse_second_stack
  [ "$mode" = detached ] || exec process-compose "$@"
  # process-compose comes back from this with 0 whatever becomes of the processes.
  process-compose "$@"
  # A client's log must not truncate that of the stack it speaks to.
  export PC_LOG_FILE=$PLATFORM_STATE/logs/process-compose-client.log
  exec python "$(dirname "${BASH_SOURCE[0]}")/await_healthy.py"
}

# Its .env is read from the working folder.
cd "${platform_checkout:?}" || exit

[ "$#" -gt 0 ] || set -- up
case $1 in
  up | run | -*) start "$@" ;;
  *)
    export PC_LOG_FILE=$PLATFORM_STATE/logs/process-compose-client.log
    exec process-compose "$@"
    ;;
esac
