# shellcheck shell=bash
# The body of bin/platform, sourced after env.sh.

# shellcheck source=/dev/null
. "${BASH_SOURCE[0]%/*}/running.sh"

# Any response but a refused connection means that the socket is in use.
is_running() {
  local code=0
  ping_stack || code=$?
  [ "$code" -ne 7 ]
}

refuse_second_stack() {
  if is_running; then
    echo "platform: a stack of this checkout is already running (its state is in $PLATFORM_STATE)." >&2
    echo "platform: \`attach\` in place of \`up\` shows it, \`down\` stops it." >&2
    exit 1
  fi
}

say_what_is_served() {
  case $PLATFORM_CODE in /nix/store/*) [ -e process-compose.yaml ] || return 0 ;; *) return 0 ;; esac
  echo "platform: serving a copy of the code as it is now." \
    "\`platform up\` in \`./nixw develop\` reloads it at each save." >&2
  [ -e .git ] || return 0
  local files
  files=$(git ls-files --others --exclude-standard -- services devtools 2>/dev/null | head -n 5 | tr '\n' ' ' || true)
  [ -z "$files" ] || echo "platform: not in that copy, because git does not track it: git add $files" >&2
}

# `run NAME` during a running stack, with another socket: process-compose refuses to share the stack's
# and, without a server, would remove it at exit. With an unknown name it would hang.
run_beside() {
  local names argument known=no
  names=" $(process-compose process list | tr '\n' ' ')"
  names=${names//-[0-9] / } # of scaled processes
  for argument in "${@:2}"; do
    case "$names-h --help " in *" $argument "*) known=yes ;; esac
    [ "$argument" != -- ] || break
  done
  if [ "$known" = no ]; then
    echo "platform: \`run\` takes the name of one process, of:${names% }" >&2
    exit 2
  fi
  export PC_SOCKET_PATH=$PC_SOCKET_PATH.r
  export PC_LOG_FILE=$PLATFORM_STATE/logs/process-compose-client.log
  shift
  exec process-compose run --no-deps "$@"
}

start() {
  local mode=attached argument arguments=()
  for argument in "$@"; do
    case $argument in
      --no-console) export CONSOLE=off && continue ;;
      --cluster) PC_CONFIG_FILES+=,$PLATFORM_CODE/process-compose.cluster.yaml && continue ;;
      -D | --detached) mode=detached ;;
      -h | --help | -v | --version | --dry-run) mode=none ;;
    esac
    arguments+=("$argument")
  done
  set -- "${arguments[@]}"
  if [ "$mode" != none ]; then
    refuse_second_stack
    say_what_is_served
  fi
  [ "$mode" = detached ] || exec process-compose "$@"
  # `wait` shows it as the reason if preflight does not get to write a new one.
  rm -f "$PLATFORM_STATE/logs/preflight.log"
  # Its exit code does not show whether the processes started; `wait` does.
  process-compose "$@" || true
  exec python -m devtools.health wait
}

stop() {
  local code=0 ended
  local none="platform: no stack of this checkout is running (its state is in $PLATFORM_STATE)"
  if is_running; then
    none=
    # It may be ending by itself, as when its terminal was closed.
    process-compose "$@" || {
      is_running && exit 1
      none="platform: it has ended"
    }
  fi
  # A stack whose socket is gone, and processes of a killed supervisor.
  ended=$(python -m devtools.processes) || { code=$? && none=; }
  ended=${ended:-$none}
  [ -z "$ended" ] || echo "$ended"
  [ "$code" -eq 0 ] || exit "$code"
}

reset_state() {
  local reply=$*
  if [ -z "$reply" ]; then
    if ! { [ -t 0 ] && [ -t 1 ]; }; then
      echo "platform: reset asks first, which needs a terminal; \`platform reset --yes\`" \
        "(\`nix run .#reset -- --yes\`) does not ask" >&2
      exit 1
    fi
    echo "platform: this stops the stack and deletes its transactions, points, logs and secrets in $PLATFORM_STATE"
    read -rp "platform: go on? [y/N] " reply || true
  fi
  case $reply in
    --yes | [yY] | [yY][eE][sS]) ;;
    *) echo "platform: nothing was changed; \`platform reset\` takes only --yes" && exit 1 ;;
  esac
  ! is_running || stop down
  exec python -m devtools.reset
}

help() {
  cat <<END
usage: platform [COMMAND] [ARGUMENT…]      the stack of this checkout

  up                  start it in the foreground: process-compose's screen at a terminal
  up --no-console     start it without the console
  up --cluster        start it with a Redis Cluster of six nodes instead of one Redis; other users of
                      the machine can join it
  up -D               start it in the background, and wait until it is healthy
  status              show each process with its port and health
  down                stop it
  reset               stop it and delete transactions, points, logs and secrets, after asking
  run smoke           send payments through it and check the responses
  attach              open process-compose's screen on a running stack
  process restart X   restart one process; also stop, start, scale X 2

examples:
  platform up -D && merchant pay 1250 USD --as alice
  PLATFORM_PORT=auto platform up -D     for a second checkout on this machine
  platform process restart core-api
  platform reset --yes                  without asking

The other commands: merchant, logs, deadletters, doctor; each has --help. Anything else goes to
process-compose, whose help is \`process-compose --help\`.
END
}

refuse() {
  echo "platform: there is no \`$*\`; see \`platform --help\`" >&2
  exit 2
}

cd "$PLATFORM_CHECKOUT" || exit

[ "$#" -gt 0 ] || set -- up
[ "$1" != run ] || ! is_running || run_beside "$@"
case $1 in
  -h | --help | help) help ;;
  down | status) case ${2--} in -) ;; -h | --help) help && exit ;; *) refuse "$@" ;; esac ;;&
  status) exec python -m devtools.health status ;;
  up | run | -*) start "$@" ;;
  down) stop "$@" ;;
  reset)
    shift
    reset_state "$@"
    ;;
  *)
    process-compose "$1" --help >/dev/null 2>&1 || refuse "$@"
    exec process-compose "$@"
    ;;
esac
