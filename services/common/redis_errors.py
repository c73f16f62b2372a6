"""Redis' errors as responses of an HTTP service."""

from typing import Any

import falcon
import redis
import structlog
from redis.exceptions import AskError, ClusterDownError

from services.common import redis_client, scripts
from services.common.problems import Unavailable
from services.common.web import App

# The first attempt may have been sent on a connection that then broke, or before a failover.
_UNSURE = (scripts.UnsureError, redis.ReadOnlyError, AskError, ClusterDownError)

_log = structlog.get_logger()


def handle_errors(
    app: App,
    detail: str = "This is temporarily unavailable.",
    unsure: str = "The request may have been carried out.",
) -> None:
    """Makes the app respond 503 if Redis is down, slow, loading, full or read-only.

    `unsure` follows `detail` in the response to a POST that Redis may yet execute.
    """

    def respond(
        req: falcon.Request, _resp: falcon.Response, error: Exception, _params: dict[str, Any]
    ) -> None:
        _log.error("Redis error", reason=f"{type(error).__name__}: {error}")
        # A stalled Redis executes the commands it received once it resumes.
        is_refused = isinstance(error, redis.ResponseError) and not isinstance(error, _UNSURE)
        is_unsure = req.method == "POST" and not is_refused
        raise Unavailable(f"{detail} {unsure}" if is_unsure else detail)

    for kind in redis_client.ERRORS:
        app.add_error_handler(kind, respond)
