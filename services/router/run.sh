# shellcheck shell=sh
# Runs the router of the stack; with `adapt` it only writes its configuration again, before a reload.
# Not `caddy run --config Caddyfile`: a Caddyfile cannot silence Go's own log, to which the exporter of
# traces writes an error per batch.
# shellcheck source=/dev/null
. "$PLATFORM_STATE/environment"
export CADDY_STATE="$PLATFORM_STATE/caddy" HOME="$PLATFORM_STATE/caddy"
# Caddy does not treat an empty HTTP_HOST as unset: it would not listen at all.
export HTTP_HOST="${HTTP_HOST:-127.0.0.1}" HTTP_PORT="$ROUTER_PORT"
if [ -n "${OTEL_EXPORTER_OTLP_ENDPOINT-}" ]; then
  export TRACING=on OTEL_SERVICE_NAME=router OTEL_PROPAGATORS=tracecontext
  # In ms: an endpoint that does not respond must not delay the stop.
  export OTEL_BSP_SCHEDULE_DELAY=500 OTEL_BSP_EXPORT_TIMEOUT=400 OTEL_EXPORTER_OTLP_TIMEOUT=400
fi
# First into a variable: on an empty configuration Caddy would start, serve nothing and open its admin port.
config=$(caddy adapt --adapter caddyfile --config services/router/Caddyfile) || exit
printf %s "$config" | sed 's/"logging":{/&"sink":{"writer":{"output":"discard"}},/' >"$CADDY_STATE/config.json"
[ "${1-}" = adapt ] || exec caddy run --config "$CADDY_STATE/config.json"
