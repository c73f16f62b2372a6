#!/bin/sh
# A readiness probe: `ready.sh NAME COMMAND...` repeats COMMAND until it succeeds, then notes the
# moment NAME was first ready in the state folder, for services/preflight/ready.py to tell.
# The bound on the loop is here and not only in process-compose's timeout, so that a probe whose
# supervisor died ends too: 180 tries of 0.1 s are 18 s and more.
name=$1
shift
tries_left=180
until "$@" >/dev/null 2>&1; do
  tries_left=$((tries_left - 1))
  [ "$tries_left" -gt 0 ] || exit 1
  sleep 0.1
done
stamp=${PLATFORM_STATE:-.state}/ready/$name
[ -e "$stamp" ] || : >"$stamp"
