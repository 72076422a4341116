"""Validation errors as lines that a user can act on: place, key, what, what was got, what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from utils.config.parts import Part, StrictModel, parts
from utils.config.yaml_text import Node

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


def describe(error: ValidationError, tree: Node, model: type[StrictModel]) -> list[str]:
    """One line for each key of `tree` that `error` (from validating it as `model`) complains about."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        key = _key_of(tree, detail["loc"])
        if detail["type"] == "missing":
            key = (*key, str(detail["loc"][-1]))
        found.setdefault(key, []).append(detail)
    # A union reports what each member says; what is said about the inside of a value is the closest.
    inner = [key for key in found if not any(k != key and k[: len(key)] == key for k in found)]
    return [_line(key, found[key], tree, model) for key in inner]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or nothing when none is close."""
    close = get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _key_of(tree: Node, loc: Iterable[int | str]) -> tuple[str, ...]:
    key: tuple[str, ...] = ()
    for part in loc:
        child = tree.child(part)
        if child is not None:  # otherwise the name of a union's member, or a key that is missing
            tree, key = child, (*key, str(part))
    return key


def _line(key: tuple[str, ...], details: list[Any], tree: Node, model: type[StrictModel]) -> str:
    parent, node = tree, tree
    for part in key:
        parent, child = node, node.child(int(part) if isinstance(node.value, list) else part)
        node = child or node
    kind = details[0]["type"]
    what = " or ".join(dict.fromkeys(_what(detail) for detail in details)).replace(" or should be ", " or ")
    got = "" if kind in ("missing", "misfit") else f" (got {_short(node.plain())})"
    if kind == "extra_forbidden":
        known = sorted(set(_names(model, tree, key[:-1])))
        hint = did_you_mean(key[-1], known) or f"; known here: {', '.join(known)}"
        place = node.key
    else:
        hint = did_you_mean(node.value, _choices(details)) if isinstance(node.value, str) else ""
        if node.value is None:
            hint = "; null removes an inherited key, and here none is inherited"
        place = parent.key if kind == "missing" else node.place
    return ": ".join(filter(None, (str(place), ".".join(key), f"{what}{got}{hint}")))


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


def _names(model: Any, node: Node | None, path: tuple[str, ...]) -> Iterator[str]:
    """The field names that may stand in the mapping at `path` below `node`, a value of type `model`."""
    for owner in _models(model, node):
        if not path:
            yield from owner.model_fields
        elif path[0] in owner.model_fields:
            annotation = owner.model_fields[path[0]].annotation
            yield from _names(annotation, node.child(path[0]) if node else None, path[1:])
    if path and node is not None and not isinstance(model, type):
        # A list or mapping of models: one more step of the path, the same models.
        child = node.child(int(path[0]) if isinstance(node.value, list) else path[0])
        for argument in get_args(model):
            yield from _names(argument, child, path[1:])


def _models(annotation: Any, node: Node | None) -> Iterator[type[BaseModel]]:
    """The models that a value of type `annotation` may be, alternatives included."""
    if isinstance(annotation, type) and issubclass(annotation, Part) and Part in annotation.__bases__:
        chosen = node.child("type") if node else None
        name = chosen.plain() if chosen else annotation.default_type
        yield from (part for type_, part in parts(annotation).items() if type_ == name)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif not isinstance(annotation, (type, NoneType)) and not _is_container(annotation):
        for argument in get_args(annotation):
            yield from _models(argument, node)


def _is_container(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return isinstance(origin, type) and hasattr(origin, "__contains__") and not issubclass(origin, BaseModel)
