"""OTEL_EXPORTER_OTLP_HEADERS: `name=value`, separated by commas, values percent-encoded."""

import re
from urllib.parse import unquote

_HEADER = re.compile(
    r" *[\w!#$&'*+.^`|~-]+ *=([ -$&-+\--~]|%[2-6][\da-f]|%7[\da-e])*", re.ASCII | re.IGNORECASE
)


def validated(text: str) -> str:
    """The text.

    Raises:
        ValueError: it is malformed. Caddy's exporter would log it, perhaps with a key.
    """
    if all(map(_HEADER.fullmatch, text.split(","))):
        return text
    raise ValueError(
        "name=value, separated by commas; values are printable ASCII, with %25 for a percent sign "
        "and %2C for a comma"
    )


def parse(text: str) -> dict[str, str]:
    """The headers, decoded as in Caddy's exporter.

    OpenTelemetry's parser for Python drops a value with `;`, and does not decode one with a space.
    """
    pairs = [header.partition("=") for header in text.split(",") if header]
    return {name.strip(): unquote(value).strip() for name, _, value in pairs}
