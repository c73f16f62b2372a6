"""`python -m services.common.healthcheck`: exit code 0 when the container's service is healthy.

For container images, which have neither a shell nor curl. Of the standard library alone, because it
is started every few seconds. What it prints is kept by the container engine (`docker inspect`).
"""

from __future__ import annotations

import http.client
import os
import sys

# Under the 2 s after which the engine gives up.
_TIMEOUT_SECONDS = 1.5
_ANSWER_BYTES_MAX = 4096
# Where to ask one that listens everywhere.
_LOOPBACKS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> int:
    """Asks the service where it listens for its health, and prints the answer."""
    host = os.environ.get("HTTP_HOST", "")
    connection = http.client.HTTPConnection(
        _LOOPBACKS.get(host, host), int(os.environ["HTTP_PORT"]), timeout=_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        print(answer.status, answer.read(_ANSWER_BYTES_MAX).decode(errors="replace"))  # noqa: T201
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")  # noqa: T201
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
