"""Validation errors as lines that a user can act on: place, key, what, what was got, what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

from pydantic import ValidationError

from utils.config.yaml_text import Node


class Outline(Protocol):
    """What may stand in a config: `utils.config.schema.Schema`."""

    def keys(self, tree: Node, path: Sequence[str]) -> list[str]: ...
    def owners(self, tree: Node, path: Sequence[str]) -> list[str]: ...
    def complete(self, tree: Node, path: Sequence[str]) -> str: ...

_WORDING = {
    "missing": "required but missing",
    "extra_forbidden": "unknown key",
    "bool_type": "should be true or false",
    "float_type": "should be a number",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "string_type": "should be text",
    "model_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
}


def describe(error: ValidationError, tree: Node, outline: Outline) -> list[str]:
    """One line for each key of `tree` that `error`, from validating it, complains about."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        key = key_of(tree, detail["loc"])
        if detail["type"] == "missing":
            key = (*key, str(detail["loc"][-1]))
        found.setdefault(key, []).append(detail)
    # A union reports what each member says; what is said about the inside of a value is the closest.
    inner = [key for key in found if not any(k != key and k[: len(key)] == key for k in found)]
    return [_line(key, found[key], tree, outline) for key in inner]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or nothing when none is close."""
    close = closest(str(word), known)
    return "" if close is None else f"; did you mean {close!r}?"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like a word; None when none is close."""
    return next(iter(get_close_matches(word, list(known), n=1)), None)


def key_of(tree: Node, loc: Iterable[int | str]) -> tuple[str, ...]:
    """The key of `tree` that a place in one of pydantic's errors means."""
    key: tuple[str, ...] = ()
    for part in loc:
        child = tree.child(part)
        if child is not None:  # otherwise the name of a union's member, or a key that is missing
            tree, key = child, (*key, str(part))
    return key


def _line(key: tuple[str, ...], details: list[Any], tree: Node, outline: Outline) -> str:
    parent, node = tree, tree
    for part in key:
        parent, child = node, node.child(int(part) if isinstance(node.value, list) else part)
        node = child or node
    kind = details[0]["type"]
    what = " or ".join(dict.fromkeys(_what(detail) for detail in details)).replace(" or should be ", " or ")
    got, hint, place = f" (got {_short(node.plain())})", "", node.place
    if kind == "missing":
        example = outline.complete(tree, key)
        got, hint, place = "", f"; base: {example} has it" if example else "", parent.key
    elif kind in ("misfit", "value_error"):
        blamed = _blamed(what, tree, node)
        got, place = got if kind == "value_error" else "", node.place if blamed is node else blamed.key
    elif kind == "extra_forbidden":
        hint, place = _known_instead(key, tree, outline), node.key
    elif node.value is None:
        hint = "; null removes an inherited key, and here none is inherited" + did_you_mean(key[-1], _others(parent))
    elif isinstance(node.value, str):
        hint = did_you_mean(node.value, _choices(details))
    return ": ".join(filter(None, (str(place), ".".join(key), f"{what}{got}{hint}")))


def _known_instead(key: tuple[str, ...], tree: Node, outline: Outline) -> str:
    """What could have been meant by a key that is not known where it stands."""
    known, owners = outline.keys(tree, key[:-1]), outline.owners(tree, key)
    if owners:
        return f"; a key of type: {' or '.join(owners)}"
    return did_you_mean(key[-1], known) or f"; known here: {', '.join(known)}"


def _blamed(what: str, tree: Node, node: Node) -> Node:
    """The value that a misfit names by its key, in `node` or from the top; `node` where it names none.

    Of several one that stands on the command line, where what does not fit came last, else the first.
    """
    words = [word for word in what.split() if word is what.split()[0] or word.endswith(":")]
    named = [found for word in words if (found := _named(word.strip("(:").split("."), tree, node)) is not None]
    return next((found for found in named if not found.key.line), named[0] if named else node)


def _named(keys: Sequence[str], tree: Node, node: Node) -> Node | None:
    """What keys lead to as far as they are known, in `node` or from the top; None where the first is in neither."""
    for found in (node, tree):
        below = [found]
        for key in keys:
            child = below[-1].child(key)
            if child is None:
                break
            below.append(child)
        if len(below) > 1:
            return below[-1]
    return None


def _others(parent: Node) -> list[str]:
    """The keys of a mapping that are not null."""
    entries = parent.value if isinstance(parent.value, dict) else {}
    return [key for key, node in entries.items() if node.value is not None]


def _what(detail: Any) -> str:
    text = _WORDING.get(detail["type"], detail["msg"])
    return re.sub(r"^(Input|Value error,|Assertion failed,) ?", "", text)


def _choices(details: list[Any]) -> list[str]:
    choices: list[str] = []
    for context in (detail.get("ctx", {}) for detail in details):
        choices += context.get("choices", [])
        choices += re.findall(r"'([^']*)'", str(context.get("expected", "")))
    return choices


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
