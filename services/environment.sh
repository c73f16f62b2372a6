# shellcheck shell=sh
# What the stack gives its processes. Sourced by the commands and probes of process-compose.yaml,
# and said again in Python by devtools/address.py and devtools/environment.py, which check it
# beforehand; a test holds them together.
#
# PLATFORM_PORT may have been `auto`: which number came of it, preflight has written down.
PLATFORM_STATE=${PLATFORM_STATE:-.state}
if [ ! -r "$PLATFORM_STATE/port" ]; then
  echo "$PLATFORM_STATE/port is missing: preflight writes it, so run that first" >&2
  exit 1
fi
read -r PLATFORM_PORT <"$PLATFORM_STATE/port"

ROUTER_PORT=$PLATFORM_PORT
AUTH_API_PORT=$((PLATFORM_PORT + 1))
CORE_API_PORT=$((PLATFORM_PORT + 2))
# A second connector (`process-compose process scale psp-connector 2`) answers at +13, …
PSP_CONNECTOR_PORT=$((PLATFORM_PORT + 3 + 10 * ${PC_REPLICA_NUM:-0}))
PSP_SANDBOX_PORT=$((PLATFORM_PORT + 4))
REDIS_PORT=$((PLATFORM_PORT + 5))
export PLATFORM_STATE PLATFORM_PORT
export ROUTER_PORT AUTH_API_PORT CORE_API_PORT PSP_CONNECTOR_PORT PSP_SANDBOX_PORT REDIS_PORT

# What you set yourself stays as it is.
export JWT_SECRET_FILE="${JWT_SECRET_FILE:-$PLATFORM_STATE/jwt-secret}"
export REDIS_URL_FILE="${REDIS_URL_FILE:-$PLATFORM_STATE/redis-url}"
export PSP_URL="${PSP_URL:-http://127.0.0.1:$PSP_SANDBOX_PORT}"
