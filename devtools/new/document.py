"""YAML files of the stacks, edited as text: comments, order and what was written by hand stay.

PyYAML only reads: where an item is, and whether the text is still YAML after an edit.
"""

import json
import operator
import re
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.error import MarkedYAMLError

from devtools.catalog import PYTHON, Service
from devtools.new.unsynced import blocks

# A key and its value in a mapping, a value twice in a list.
_Item = tuple[yaml.Node, yaml.Node]


class Document:
    """A YAML file; an edit leaves the rest of the text as it is.

    A path is the keys from the top level to an item of a mapping or a list; a new value is YAML.
    The methods raise LookupError if the edit is not possible, as when others refer to the item.
    """

    def __init__(self, text: str) -> None:
        """Raises YAMLError, also for a key that is there twice."""
        self._read(text)

    def _read(self, text: str) -> None:
        data = yaml.load(text, Loader=yaml.CSafeLoader)
        root: Any = yaml.compose(text, Loader=yaml.CSafeLoader)
        _refuse_duplicates(root)
        self.text, self._root = text, root
        self.data: Any = data
        """The values, with those merged from anchors."""

    def put(self, *path: str, value: str) -> None:
        """Appends an item to a mapping, or its name to a list, unless it is there."""
        *parents, name = path
        if name in (reduce(operator.getitem, parents, self.data) or ()):
            return
        node = self._node(parents)
        is_list = isinstance(node, yaml.SequenceNode)
        if _is_block(node):
            first, _ = _items(node)[0]
            at = self._line_end(_items(node)[-1])
            begin = self.text.rfind("\n", 0, first.start_mark.index) + 1
            [indent] = re.findall(r" *(?:- )?", self.text[begin:])[:1]
            self._splice(at, at, f"\n{indent}{name}" + ("" if is_list else f": {value}"), path)
            return
        item = name if is_list else f"{name}: {_in_braces(value)}"
        if items := _items(node):
            at, item = self._end(items[-1]), f", {item}"
        elif isinstance(node, yaml.ScalarNode):  # nothing after the colon
            at, item = node.end_mark.index, f" {{{item}}}"
        else:
            at = node.end_mark.index - 1
        self._splice(at, at, item, path)

    def replace(self, *path: str, value: str) -> None:
        """Replaces a string, or adds it."""
        *parents, name = path
        mapping = reduce(operator.getitem, parents, self.data)
        if name not in mapping:
            self.put(*path, value=value)
        elif mapping[name] != yaml.load(value, Loader=yaml.CSafeLoader):
            node = self._node(path)
            start, former = node.start_mark.index, self.text[: node.end_mark.index].rstrip()
            self._splice(
                start, max(start, len(former)), f"{'' if node.value else ' '}{value}", path
            )

    def remove(self, *path: str) -> None:
        """Removes an item, if it is there, with the comment above it; the last one with its parent.

        Not if it is merged from an anchor.
        """
        *parents, name = path
        try:
            node, items = self._node(parents), self._items(parents)
        except LookupError:
            return
        if name not in items:
            return
        if len(items) == 1:
            self.remove(*parents)
        elif node.flow_style:
            self._splice(*self._flow_span([*items.values()], [*items].index(name)), "", path)
        else:
            self._splice(*self._lines(items[name][0].start_mark.line), "", path)

    def add_blocks(self, section: str, block: Callable[[Service], str]) -> None:
        """Adds a block for each service that has none, above that of the router."""
        for name, service in PYTHON.items():
            present = blocks(self.text, section)
            if name not in present:
                at = present["router"]
                self._splice(at, at, block(service), [section, name])

    def remove_block(self, section: str, name: str) -> None:
        """Removes a block, and others' dependencies on it."""
        for other in self.data[section]:
            self.remove(section, other, "depends_on", name)
        self.remove(section, name)

    def _node(self, path: Sequence[str]) -> Any:
        node = self._root
        for name in path:
            node = {key.value: value for key, value in _items(node)}[name]
        return node

    def _items(self, path: Sequence[str]) -> dict[str, _Item]:
        return {item[0].value: item for item in _items(self._node(path))}

    def _splice(self, start: int, end: int, new: str, path: Sequence[str]) -> None:
        text = self.text[:start] + new + self.text[end:]
        try:
            self._read(text)
        except MarkedYAMLError as error:
            where = text.splitlines()[error.problem_mark.line].strip() if error.problem_mark else ""
            name = ".".join(path)
            raise LookupError(f"change {name} by hand: {error.problem}: {where}") from None

    def _end(self, item: _Item) -> int:
        """Where an item on one line, or in brackets, ends, without the comment that follows."""
        key, value = item
        if value.start_mark.index >= key.start_mark.index:
            return value.end_mark.index
        [alias] = re.compile(r"[^,\]}#\n]*").findall(self.text, key.end_mark.index)[:1]
        return key.end_mark.index + len(alias)  # the anchor is further up

    def _line_end(self, item: _Item) -> int:
        """The end of an item's last line."""
        while item[1].start_mark.index >= item[0].start_mark.index and _is_block(item[1]):
            item = _items(item[1])[-1]
        end = len(self.text[: self._end(item)].rstrip())
        return (self.text + "\n").find("\n", end)

    def _flow_span(self, items: list[_Item], number: int) -> tuple[int, int]:
        """An item in brackets, with the comma that goes with it."""
        start, end = items[number][0].start_mark.index, self._end(items[number])
        if number < len(items) - 1:
            return start, items[number + 1][0].start_mark.index
        before = self._end(items[number - 1])
        # A comment stays behind its comma, which may be the last character in brackets.
        return (start if "#" in self.text[before:start] else before), end

    def _lines(self, number: int) -> tuple[int, int]:
        """The lines of the item that begins there, counted from 0, and of the comment above it."""
        lines = self.text.splitlines(keepends=True)
        depths = [len(line) - len(line.lstrip()) for line in lines]
        indent, end = depths[number], number + 1
        # A list need not be further in than its name.
        inner = "]}" if lines[number].lstrip().startswith("- ") else "]}-"
        for following in range(end, len(lines)):
            content = lines[following].strip()
            if content and (depths[following] > indent or content[0] in inner):
                end = following + 1
            elif content and not content.startswith("#"):
                break
        first = number
        while first and lines[first - 1].startswith(" " * indent + "#"):
            first -= 1
        if first and not lines[first - 1].strip() and not (lines[end:] or [""])[0].strip():
            end += 1  # one blank line between the others
        return len("".join(lines[:first])), len("".join(lines[:end]))


def _in_braces(value: str) -> str:
    return json.dumps(value) if re.match(r"[^\[{\"'].*[{}\[\],]", value) else value


def _items(node: yaml.Node) -> list[_Item]:
    if isinstance(node, yaml.SequenceNode):
        begin = node.start_mark.index
        return [(one, one) for one in node.value if one.start_mark.index >= begin]  # no alias
    return node.value if isinstance(node, yaml.MappingNode) else []


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style and bool(_items(node))


def _refuse_duplicates(root: yaml.Node) -> None:
    nodes, seen = [root], {id(root)}  # an alias leads to a node again
    while nodes:
        node, keys = nodes.pop(), set()
        for key, value in _items(node):
            if isinstance(node, yaml.MappingNode) and key.value in keys:
                problem = f'found duplicate key "{key.value}"'
                raise ComposerError(problem=problem, problem_mark=key.start_mark)
            if isinstance(key.value, str):
                keys.add(key.value)
            if id(value) not in seen:
                seen.add(id(value))
                nodes.append(value)
