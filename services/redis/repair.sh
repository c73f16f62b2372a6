# shellcheck shell=sh
# Removes an incomplete transaction from the end of the append-only file in folder $1, as a power cut may
# leave it. Redis (7.0.15, aof-load-truncated yes) removes its last command only, and executes the others at
# its next start. Other damage is left to Redis, which refuses it and says what to do, but for a cut that an
# earlier Redis has written behind. A cut of more than 1 MB is left, too: no transaction is so long, so a length is
# wrong, and valid transactions follow.
cd "$1/appendonlydir" 2>/dev/null || exit 0
# The last one with content: during a rewrite there are two.
file=$(sed -n 's/^file \(.*\) seq .* type i.*/\1/p' appendonly.aof.manifest |
  while read -r name; do [ ! -s "$name" ] || echo "$name"; done | tail -n 1)
[ "$file" ] || exit 0
found=$(redis-check-aof "$file") && exit 0
bytes=${found##*diff=}
bytes=${bytes%%[!0-9]*}
[ "$bytes" -le 1000000 ] || exit 0
case $found in
*"Expected to read string"*) exit 0 ;;                   # an impossible length
*"Expected to read "* | *"Reached EOF"*) ;;              # within a text; between two commands
*"got: 0"*) [ "$(tail -c 1 "$file")" ] || exit 0 ;;      # within the length of a text
*0x* | *" error"*) exit 0 ;;
esac
tail -c "$bytes" "$file" >removed &&
  echo y | redis-check-aof --fix "$file" &&
  echo "What was removed is in $PWD/removed"
exit 0
