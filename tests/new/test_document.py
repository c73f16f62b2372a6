"""YAML files that are edited as text."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from devtools.new.document import Document

_VALUES = ["1", '"#"', "[1, {x: 2}]", "{x: 1,\n      y: 2\n  }", "|\n    #\n    text", "", "*k"]
_VALUES += ["\n    x: 1\n    y:\n      - 2", "\n    - x: 1\n      y: 2", "\n    - *k"]


_NOTES = ["", "\n", "  # note\n", "\n  # note\n"]


@given(
    parts=st.lists(
        st.tuples(st.sampled_from(_NOTES), st.sampled_from(_VALUES)), min_size=2, max_size=5
    ),
    number=st.integers(0, 4),
    end=st.sampled_from(["", "# end\n", "\n# end\nb: *k\n"]),
)
def test_an_item_comes_and_goes(parts: list[tuple[str, str]], number: int, end: str) -> None:
    """The rest of the text is the same, but for the comment above what is removed."""
    items = [f"{note}  i{n}: {value}\n" for n, (note, value) in enumerate(parts)]
    text = "".join(["k: &k {z: 1}\na:\n", *items, end])
    before, document = yaml.safe_load(text), Document(text)
    document.put("a", "new", value="[1]")
    assert document.data == before | {"a": before["a"] | {"new": [1]}}
    document.remove("a", "new")
    assert document.text == text
    name = f"i{number % len(items)}"
    document.remove("a", name)
    assert document.data == before | {"a": {n: v for n, v in before["a"].items() if n != name}}
    assert document.text.count("#") >= text.count("#") - items[number % len(items)].count("#")


@pytest.mark.parametrize(
    ("before", "removed", "after"),
    [
        ("a:\n- x\n- y\nb: 1\n", "x", "a:\n- y\nb: 1\n"),
        ("a:\n- x\nb: 1\n", "x", "b: 1\n"),
        ("a: [x, # why\n  y, z]\n", "y", "a: [x, # why\n  z]\n"),
        ("a: [x, # why\n  y]\n", "y", "a: [x, # why\n  ]\n"),
        ("a: {x: 1, y: [1, 2]}\n", "y", "a: {x: 1}\n"),
        ("a: {x, y: *k}\n", "y", "a: {x}\n"),
        ("a: {x: *k, y}\n", "x", "a: {y}\n"),
        ("a: {<<: *k, y}\n", "z", "a: {<<: *k, y}\n"),
    ],
)
def test_an_item_goes_in_any_form(before: str, removed: str, after: str) -> None:
    """In lists as other programs write them, and in brackets, whose comments stay."""
    anchor = "k: &k {z: 1}\n"
    document = Document(anchor + before)
    document.remove("a", removed)
    assert document.text == anchor + after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:\n- x # why\n\nb: 1\n", "a:\n- x # why\n- new\n\nb: 1\n"),
        ("a:\n  - x\n  # soon: y", "a:\n  - x\n  - new\n  # soon: y"),
        ("a: [x, # why\n  y, # z\n  ]\n", "a: [x, # why\n  y, new, # z\n  ]\n"),
        ("a: []", "a: [new]"),
        ("a: {} # none\n", "a: {new: 1} # none\n"),
        ("a: # none\nb: 1\n", "a: {new: 1} # none\nb: 1\n"),
        ("a: &a\n  é: |\n    #\n\n# b\nb: 1", "a: &a\n  é: |\n    #\n  new: 1\n\n# b\nb: 1"),
        ("a:\n  x: {y: 1} # why\n", "a:\n  x: {y: 1} # why\n  new: 1\n"),
        ("a:\n  x:\n    - *k # why", "a:\n  x:\n    - *k # why\n  new: 1"),
        ("a:\n  x:\n    <<: *k # why", "a:\n  x:\n    <<: *k # why\n  new: 1"),
        ("a:\n  x: # why\n", "a:\n  x: # why\n  new: 1\n"),
        ("a: {x: *k}\n", "a: {x: *k, new: 1}\n"),
        ("a: {x, y: {z: 1}}\n", "a: {x, y: {z: 1}, new: 1}\n"),
        ("a: {<<: *k}\n", "a: {<<: *k, new: 1}\n"),
    ],
)
def test_an_item_is_added_in_any_form(before: str, after: str) -> None:
    """After the last one; comments stay where they are."""
    anchor = "k: &k {z: 1}\n"
    document = Document(anchor + before)
    document.put("a", "new", value="1")
    assert document.text == anchor + after
    document.put("a", "new", value="2")
    assert document.text == anchor + after


@pytest.mark.parametrize("former", ["x", "", "'x' # why", ">\n    x\n    y\n", "[x]"])
def test_a_value_is_replaced_in_any_form(former: str) -> None:
    """The rest stays, also a comment."""
    document = Document(f"a:\n  x: {former}\n  # next\n  y: 1\n")
    document.replace("a", "x", value='"z"')
    assert document.data == {"a": {"x": "z", "y": 1}}
    assert document.text.endswith("\n  # next\n  y: 1\n")
    assert ("# why" in document.text) == ("# why" in former)


def test_a_value_with_braces_is_quoted_within_braces() -> None:
    """As a variable of the engine is."""
    document = Document("a: {x: 1}\n")
    for name, value in {"y": "${Y:-}", "z": "[1, 2]"}.items():
        document.put("a", name, value=value)
    assert document.data == {"a": {"x": 1, "y": "${Y:-}", "z": [1, 2]}}
