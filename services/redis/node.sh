# shellcheck shell=sh
# A node of the stack's Redis Cluster; $1 is its process, `redis` or `redis-N`.
number=${1#redis}
number=${number#-}
number=${number:-0}
port=$((REDIS_PORT + 10 * number))
folder=$PLATFORM_STATE/redis/node-$number
mkdir -p "$folder"
sh services/redis/repair.sh "$folder"
# From standard input, so that the password is not in the process list.
exec redis-server - --port "$port" --cluster-port $((port + 2)) --dir "$folder" <<END
$(cat services/redis/redis.conf services/redis/cluster.conf)
requirepass $(cat "$PLATFORM_STATE/redis-password")
masterauth $(cat "$PLATFORM_STATE/redis-password")
END
