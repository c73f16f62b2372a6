# shellcheck shell=bash
# Sourced by `platform` and by `process-compose`.

# Asks the process-compose of this checkout whether it is alive. Returns curl's exit code: 7 if nothing
# listens at the socket, 28 if there is no response within a second, as after Ctrl-Z in its terminal.
ping_stack() {
  [ -S "$PC_SOCKET_PATH" ] || return 7
  # Without ~/.curlrc and proxies.
  curl --disable --noproxy '*' --silent --max-time 1 --unix-socket "$PC_SOCKET_PATH" --output /dev/null http://pc/live
}
