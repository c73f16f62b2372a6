#!/bin/sh
# `reload.sh PID` has the router of that process id read its Caddyfile again whenever that is saved,
# as services/reload.py does for the services. Comes back at once; the looking goes on without it.
#
# In place of `caddy run --watch`, which gives up for good at the first file that does not parse.
# Caddy answers SIGUSR1 with the new file, or says what is wrong with it and keeps the old one.
router=$1
caddyfile=services/router/Caddyfile

# The rule of services/reload.py: by default where the code is a checkout.
if [ -z "${RELOAD:-}" ] && [ -f pyproject.toml ] && [ -w "$caddyfile" ]; then
  RELOAD=1
fi
[ "${RELOAD:-}" = 1 ] || exit 0

# Looks twice a second, as long as the router lives. What is different is looked at once more, and
# is still being saved if it changes or is empty.
look() {
  while sleep 0.5 && kill -0 "$router"; do
    now=$(cksum <"$caddyfile")
    [ "$now" != "$seen" ] || continue
    sleep 0.1
    if [ -s "$caddyfile" ] && [ "$now" = "$(cksum <"$caddyfile")" ]; then
      kill -USR1 "$router"
      seen=$now
    fi
  done
}

seen=$(cksum <"$caddyfile")
look </dev/null >/dev/null 2>&1 &
