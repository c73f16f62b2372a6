"""The code that runs in production; each folder is one process."""

import sys

# redis-py imports OpenTelemetry's metrics if installed: 4 MB and 80 ms per process, for counters
# that are off. None makes the import fail, which redis-py expects; common/tracing.py removes it.
sys.modules.setdefault("opentelemetry.metrics", None)  # type: ignore[arg-type]
