from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.logs import as_json

# With surrogates, as in the name of a file that is not UTF-8.
texts = st.text(st.characters())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)


@given(st.dictionaries(texts, values))
def test_a_json_line_is_ascii_and_reads_back(fields: dict[str, Any]) -> None:
    """Whatever is logged makes one line that steers no terminal, and is read back as it was."""
    line = as_json(fields, default=repr)
    assert line.isascii()
    assert "\n" not in line
    assert "\x1b" not in line
    assert fields == json.loads(line)


@given(st.dictionaries(texts, st.sampled_from([object(), ValueError("\ud800"), b"\xff", {1, 2}])))
def test_what_json_has_no_form_for_is_logged_all_the_same(fields: dict[str, Any]) -> None:
    """A log call never fails over what it is given."""
    assert fields.keys() == json.loads(as_json(fields, default=repr)).keys()
