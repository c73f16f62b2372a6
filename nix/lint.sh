# shellcheck shell=bash
# The lint check, run at the root of the sources. Every tool runs, even after failures;
# the counts go to the file named by COUNTS.
set -uo pipefail

passed=0 failed=0 skipped=0

step() {
  local name=$1
  shift
  echo "--- $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    echo "--- $name FAILED"
    failed=$((failed + 1))
  fi
}

shell_scripts() {
  { find . -name '*.sh' && printf '%s\n' nixw .ci/run .envrc; } | xargs shellcheck
}

caddyfile_is_valid() {
  # Any addresses will do.
  local addresses
  addresses=$(sed -n 's/.*{$\([A-Z0-9_]*_ADDRESS\):.*/\1=127.0.0.1:8001/p' services/router/Caddyfile)
  # shellcheck disable=SC2086 # words
  env $addresses HTTP_PORT=8000 CADDY_STATE="$TMPDIR/caddy" XDG_DATA_HOME="$TMPDIR" \
    XDG_CONFIG_HOME="$TMPDIR" caddy validate --adapter caddyfile --config services/router/Caddyfile
}

step "ruff check" ruff check --no-cache .
step "format" format --check
step "mypy" mypy --no-color-output --cache-dir=/dev/null
step "shellcheck" shell_scripts
step "caddy validate" caddyfile_is_valid
step "process-compose --dry-run" process-compose --dry-run -f process-compose.yaml
step "process-compose --dry-run, cluster" process-compose --dry-run -f process-compose.yaml -f process-compose.cluster.yaml
if ! command -v nixfmt >/dev/null; then
  echo "--- nixfmt SKIPPED: this package set does not offer it"
  skipped=$((skipped + 1))
fi

counts="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || counts="$counts, $skipped skipped"
echo "$counts" >"${COUNTS:?}"
[ "$failed" -eq 0 ]
