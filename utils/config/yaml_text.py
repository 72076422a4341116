"""YAML text <-> plain values that remember their place: YAML 1.2 scalars, no tags, bounded in every way."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from utils.errors import InputError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 10_000  # the largest config of ours has 500

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
# The core schema of YAML 1.2 and digit groups (200_000): no on/off/yes/no, no 1:30 in base 60.
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN", True),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", False),
    "int": (rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", False),
    "float": (
        rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
        False,
    ),
}


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file's line and column (from 1), or the command line (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Node:
    """A value with the places of itself and of its key."""

    value: str | int | float | bool | None | list[Node] | dict[str, Node]
    place: Place
    key: Place

    def child(self, part: object) -> Node | None:
        """The entry `part` of a mapping or list; None where there is none."""
        if isinstance(self.value, dict):
            return self.value.get(str(part))
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class _Reader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_NODES} values, which no config has", mark)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, "nested too deeply", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Writer(yaml.SafeDumper):
    """Also quotes text that only YAML 1.2 takes for a number; lists of scalars stay on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, (_pattern, _first, _empty) in _SCALARS.items():
    for _class in (_Reader, _Writer):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))
        if _empty:
            _class.add_implicit_resolver(_TAG + _name, re.compile(r"\Z"), [""])


def _represent_list(writer: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, (dict, list)) for item in items)
    return writer.represent_sequence(_TAG + "seq", items, flow_style=flat)


def _represent_text(writer: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML folds line breaks of all kinds into blanks unless they are escaped.
    return writer.represent_scalar(_TAG + "str", text, style=None if text.isprintable() else '"')


_Writer.add_representer(list, _represent_list)
_Writer.add_representer(str, _represent_text)


def write(value: Any) -> str:
    """`value` (mappings, lists, scalars) as YAML, in its own order; `parse` reads it back unchanged."""
    text: str = yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100)
    return text


def parse(text: str, source: str, mistakes: list[str], *, in_file: bool = True) -> Node:
    """Read one YAML document.

    Duplicate keys, tags and the like are added to `mistakes`, one line each, and reading goes on. Raises
    `InputError` when the text is not YAML at all or exceeds the limits of this module.
    """
    builder = _Builder(source, mistakes, in_file)
    try:
        root = _Reader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{builder.place(mark)}: not valid YAML: {_said(error, in_file)}") from None
    except yaml.reader.ReaderError as error:
        place = Place(source, text.count("\n", 0, error.position) + 1, 1) if in_file else Place(source)
        character = text[error.position]
        raise InputError(f"{place}: character {character!r} is not allowed in YAML") from None
    if root is None:
        return Node(None, builder.place(None), builder.place(None))
    return builder.build(root, (), key=builder.place(root.start_mark))


def _said(error: yaml.MarkedYAMLError, in_file: bool) -> str:
    """What is wrong, with what was opened and not closed."""
    problem = error.problem or error.context or ""
    if "'\\t'" in problem:
        return "a tab - indent with blanks"
    opened = next((sign for words, sign in _OPENED.items() if words in (error.context or "")), None)
    if opened is not None and error.context_mark is not None:
        mark = error.context_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}," if in_file else ""
        return f"{problem} - {opened}{at} is not closed"
    return f"{problem} - a bracket is not closed" if "<stream end>" in problem else problem


_OPENED = {"flow mapping": "the {", "flow sequence": "the [", "quoted scalar": "the quote"}


class _Builder:
    """Turns PyYAML's graph into a tree of `Node`s and collects what is wrong with it."""

    def __init__(self, source: str, mistakes: list[str], in_file: bool) -> None:
        self.source, self.mistakes, self.in_file = source, mistakes, in_file
        self.nodes = 0

    def place(self, mark: yaml.Mark | None) -> Place:
        if not self.in_file:
            return Place(self.source)
        return Place(self.source, mark.line + 1, mark.column + 1) if mark else Place(self.source, 1, 1)

    def blame(self, place: Place, path: tuple[str, ...], what: str) -> None:
        self.mistakes.append(": ".join(filter(None, (str(place), ".".join(path), what))))

    def build(self, node: yaml.Node, path: tuple[str, ...], key: Place) -> Node:
        place = self.place(node.start_mark)
        self.nodes += 1
        # Aliases make a graph of what looks like a short file: count its nodes as a tree.
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise InputError(f"{place}: too large or too deep after following aliases")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Node(dict(self.entries(node, path)), place, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = enumerate(node.value)
            return Node(
                [self.build(n, (*path, str(i)), self.place(n.start_mark)) for i, n in items], place, key
            )
        if isinstance(node, yaml.ScalarNode):
            return Node(self.scalar(node, path), place, key)
        self.blame(place, path, f"tag {_short_tag(node.tag)} is not allowed")
        return Node(None, place, key)

    def entries(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[tuple[str, Node]]:
        first: dict[Hashable, Place] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.blame(place, path, "a key must be a name")
                continue
            name = key_node.value
            if name in first:
                self.blame(place, (*path, name), f"duplicate key (first at line {first[name].line})")
                continue
            first[name] = place
            yield name, self.build(value_node, (*path, name), place)

    def scalar(self, node: yaml.ScalarNode, path: tuple[str, ...]) -> str | int | float | bool | None:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "null", "bool"):
            return {"str": node.value, "null": None, "bool": node.value.lower() == "true"}[kind]
        known = kind in ("int", "float")
        number = _number(node.value) if known else None
        if number is None:
            what = "not a number" if known else f"tag {_short_tag(node.tag)} is not allowed"
            self.blame(self.place(node.start_mark), path, f"{what} (got {node.value[:60]!r})")
        return number


def _number(text: str) -> int | float | None:
    """The number written as `text`, None when there is none (also for .nan); 2e5 is the integer 200000."""
    if text[:2] in ("0x", "0o"):
        return int(text, 0)
    try:
        if re.fullmatch(r"[-+]?[0-9_]+", text):
            return int(text)
        value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return None
    if math.isnan(value):
        return None
    exact = "e" in text.lower() and abs(value) < 2**53 and value.is_integer()
    return int(value) if exact else value


def _short_tag(tag: str) -> str:
    return tag.replace(_TAG, "!!")[:60]


def merge(parent: Node, child: Node) -> Node:
    """`parent` overridden by `child`, mapping by mapping.

    Lists and scalars are replaced. A mapping is replaced wholly when both state a `type` and the two
    differ: the options of one part mean nothing to another. `null` removes a key of the parent.
    """
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict):
        return child
    old, new = parent.value.get("type"), child.value.get("type")
    if old is not None and new is not None and old.value != new.value:
        return child
    merged = dict(parent.value)
    for key, node in child.value.items():
        if node.value is None and key in merged:
            del merged[key]
        else:
            merged[key] = merge(merged[key], node) if key in merged else node
    # What is missing in a mapping is missing in its file, not on the command line.
    where = child if child.place.line else parent
    return Node(merged, where.place, where.key)
