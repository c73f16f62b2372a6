"""Duplicate names in an object of JSON: parsers disagree on which value counts (RFC 8259, 4)."""

import contextlib
import json
from typing import Any


def has_duplicate_names(text: bytes) -> bool:
    """Whether an object in this JSON, which a parser accepted, has a name twice."""
    found = False

    def seen(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        fields = dict(pairs)
        found |= len(fields) != len(pairs)
        return fields

    # The parser accepted it; Python only rejects numbers of thousands of digits.
    with contextlib.suppress(ValueError):
        json.loads(text, object_pairs_hook=seen, parse_int=str)
    return found
