"""What would run in production: a folder is a process."""

import sys

# redis-py imports OpenTelemetry's metrics where it finds the package: 4 MB and 80 ms in each
# process, for counters that it does not keep by itself. None makes that import fail, which redis-py
# expects. services/common/tracing.py takes the entry away.
sys.modules.setdefault("opentelemetry.metrics", None)  # type: ignore[arg-type]
