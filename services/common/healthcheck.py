"""`python -m services.common.healthcheck`: exits with 0 if the container's service is healthy.

For container images, which have neither a shell nor curl. Uses only the standard library, because
it starts every few seconds. The container engine keeps its output (`docker inspect`).
"""

import http.client
import os
import sys

# Below the engine's 2 s timeout.
_TIMEOUT_SECONDS = 1.5
_RESPONSE_BYTES_MAX = 4096
# Where to reach a service that listens on all addresses.
_LOOPBACKS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> int:
    """Requests `/health` and prints the response; returns the exit code."""
    host = os.environ.get("HTTP_HOST", "")
    connection = http.client.HTTPConnection(
        _LOOPBACKS.get(host, host), int(os.environ["HTTP_PORT"]), timeout=_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        print(response.status, response.read(_RESPONSE_BYTES_MAX).decode(errors="replace"))  # noqa: T201
    except (OSError, http.client.HTTPException) as error:
        print(f"no response: {error}")  # noqa: T201
        return 1
    finally:
        connection.close()
    return 0 if response.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
