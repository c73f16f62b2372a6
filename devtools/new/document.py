"""YAML documents of the stacks: changes keep comments, order and what was written by hand."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.tokens import CommentToken

from devtools.catalog import PYTHON, Service
from devtools.new.unsynced import blocks


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 10_000  # lines are not wrapped
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def load(text: str) -> Any:
    """The document; raises YAMLError."""
    return _yaml().load(text)


def dump(document: Any) -> str:
    """Its text."""
    text = io.StringIO()
    _yaml().dump(document, text)
    return text.getvalue()


def changed(before: str, document: Any) -> str:
    """The document's text, as it was before if it means the same.

    ruamel.yaml drops comments inside brackets and braces.
    """
    return before if load(before) == document else dump(document)


def flow(**items: Any) -> CommentedMap:
    """A mapping on one line."""
    mapping = CommentedMap(items)
    mapping.fa.set_flow_style()
    return mapping


def flow_list(items: Iterable[str]) -> CommentedSeq:
    """A list on one line."""
    sequence = CommentedSeq(items)
    sequence.fa.set_flow_style()
    return sequence


def put(mapping: Any, name: str, value: Any) -> None:
    """Inserts before the last item, which holds the comment that follows the mapping.

    Not between an item and the comment above it, which ruamel.yaml keeps at the item before.
    """
    if name not in mapping:
        names = [*mapping]
        own = [one for one in names if one in (mapping.lc.data or {})]  # not from an anchor
        while len(own) > 1 and "#" in _below(mapping, own[-2]):
            own.pop()
        mapping.insert(names.index(own[-1]) if own else len(names), name, value)


def _below(mapping: Any, name: Any) -> str:
    """The comment lines below an item, which ruamel.yaml keeps at its last scalar or in braces."""
    node, key = mapping, name
    while isinstance(node[key], CommentedMap | CommentedSeq) and node[key]:
        node = node[key]
        if node.fa.flow_style():
            return _lines(node.ca.comment)
        key = len(node) - 1 if isinstance(node, list) else [*node.lc.data][-1]
    return _lines(node.ca.items.get(key))


def _lines(tokens: Sequence[Any] | None) -> str:
    text = "".join(token.value for token in tokens or () if isinstance(token, CommentToken))
    return text.partition("\n")[2]


def with_blocks(text: str, section: str, block: Callable[[Service], str]) -> str:
    """Adds a block for each service that has none, before that of the router."""
    for name, service in PYTHON.items():
        present = blocks(text, section)
        if name not in present:
            at = present["router"]
            text = text[:at] + block(service) + text[at:]
    return text


def without_block(text: str, section: str, name: str) -> str:
    """Removes a block, and others' dependencies on it."""
    for other in blocks(text, section):
        text = without(text, section, other, "depends_on", name)
    return without(text, section, name)


def without(text: str, *path: str) -> str:
    """Removes an item of a mapping or a list, if it is there, with the comment above it.

    By lines, because ruamel.yaml loses the comment below an item that it removes. Raises
    LookupError if the rest refers to it.
    """
    *parents, name = path
    if name not in text:
        return text
    node = document = load(text)
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if not node or name not in node:
        return text
    if node.fa.flow_style():
        node.remove(name) if isinstance(node, list) else node.pop(name)
        return dump(document)
    key = node.index(name) if isinstance(node, list) else name
    if key not in node.lc.data:  # merged from an anchor
        return text
    if len(node) == 1:
        return without(text, *parents)
    shorter = _without_lines(text, node.lc.data[key][0])
    try:
        load(shorter)
    except MarkedYAMLError as error:
        raise LookupError(f"remove {'.'.join(path)} by hand: {error.problem}") from None
    return shorter


def _without_lines(text: str, first: int) -> str:
    """Removes the item that begins at this line, counted from 0."""
    lines = text.splitlines(keepends=True)
    depths = [len(line) - len(line.lstrip()) for line in lines]
    indent, end = depths[first], first + 1
    # A list need not be further in than its name.
    inner = "]}" if lines[first].lstrip().startswith("- ") else "]}-"
    for number in range(end, len(lines)):
        content = lines[number].strip()
        if content and (depths[number] > indent or content[0] in inner):
            end = number + 1
        elif content and not content.startswith("#"):
            break
    while first and lines[first - 1].startswith(" " * indent + "#"):
        first -= 1
    if first and not lines[first - 1].strip() and not (lines[end:] or [""])[0].strip():
        end += 1  # one blank line between the others
    return "".join(lines[:first] + lines[end:])
