#!/bin/sh
# A readiness probe: `ready.sh NAME COMMAND...` repeats COMMAND until it succeeds. When it was first
# asked (at the start of the process) and when it first succeeded is noted in the state folder, for
# services/preflight/ready.py to tell; the system's own start times are whole seconds at worst.
# The bound on the loop is here and not only in process-compose's timeout, so that a probe whose
# supervisor died ends too: 180 tries of 0.1 s are 18 s and more.
notes=${PLATFORM_STATE:-.state}/ready
name=$1
shift
[ -e "$notes/$name.began" ] || : >"$notes/$name.began"
tries_left=180
until "$@" >/dev/null 2>&1; do
  tries_left=$((tries_left - 1))
  [ "$tries_left" -gt 0 ] || exit 1
  sleep 0.1
done
[ -e "$notes/$name" ] || : >"$notes/$name"
