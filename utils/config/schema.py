"""Configs as JSON schema: written for editors, and read to check a config before its classes are imported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, core_schema

from utils.config.parts import CHOICE_MARK, StrictModel, kind_named, named_part, not_a_part, parts
from utils.config.text import TextLike
from utils.config.yaml_text import Node

NEEDED = "x-required"  # keys that must be there when all files are merged
COMPLETE = "x-complete"  # files of configs/ that have all of it
LATER = "x-later"  # what only the classes can check, as it depends on keys elsewhere
_REFERENCE = "#/$defs/"


def json_schema(model: type[StrictModel], kinds: Sequence[str] = ()) -> dict[str, Any]:
    """JSON schema for editors: every part registered by now, and `base:`; and those of further kinds, by their names.

    Nothing but a part's `type` is required in it, since a file may leave the rest to its base; what all files together
    must say stands in `x-required`.
    """
    definitions: dict[str, Any] = {}
    schema = _adopt(model.model_json_schema(), definitions)
    schema["properties"]["base"] = {"type": ["string", "array"], "items": {"type": "string"}}
    for kind in kinds:
        _define_choice(kind, definitions)
    schema["$defs"] = dict(sorted(definitions.items()))
    return schema


def _adopt(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`schema` with its own definitions moved to `definitions` and its choices written out there."""
    for name, inner in schema.pop("$defs", {}).items():
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _adopt(inner, definitions)
    loosened: dict[str, Any] = _write_out(schema, definitions)
    return loosened


def _write_out(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_write_out(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {k: _write_out(v, definitions) for k, v in schema.items() if k not in ("required", CHOICE_MARK)}
    if "required" in schema:
        name = NEEDED if isinstance(schema["required"], list) else "required"  # the latter is a property
        result[name] = _write_out(schema["required"], definitions)
    if CHOICE_MARK in schema:
        result["$ref"] = f"#/$defs/{_define_choice(schema[CHOICE_MARK], definitions)}"
    return result


def _define_choice(kind_name: str, definitions: dict[str, Any]) -> str:
    if kind_name not in definitions:
        definitions[kind_name] = {}
        # A mapping without a type completes the one of the file's base.
        options: list[Any] = [{"type": "object", "not": {"required": ["type"]}}]
        for name, part in parts(kind_named(kind_name)).items():
            definitions[f"{kind_name}.{name}"] = {}
            schema = _adopt(part.model_json_schema(), definitions)
            definitions[f"{kind_name}.{name}"] = {**schema, "required": ["type"]}
            options.append({"$ref": f"#/$defs/{kind_name}.{name}"})
            if name == kind_named(kind_name).default_type:  # ... or means this one: its keys are offered
                options[0]["title"] = name
                keys = definitions[f"{kind_name}.{name}"]["properties"]
                options[0]["properties"] = {key: value for key, value in keys.items() if key != "type"}
        names = [name for name in parts(kind_named(kind_name)) if NEEDED not in definitions[f"{kind_name}.{name}"]]
        alone = [{"enum": names}] if names else []  # a name alone is the part with its defaults
        definitions[kind_name] = {"oneOf": options + alone}
    return kind_name


class Schema:
    """A JSON schema that `json_schema` made, read: what may stand where, without the classes that it was made from."""

    def __init__(self, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> None:
        """root: what is described, in the words of the schema; None: the whole config."""
        self.definitions: Mapping[str, Any] = schema["$defs"]
        self.root = schema if root is None else root
        self.validator = cache(lambda name: SchemaValidator(self._core(self.definitions[name])))

    def keys(self, tree: Node, path: Sequence[str]) -> list[str]:
        """The keys that may stand in the mapping at `path` below `tree`."""
        *_, (last, node) = self._along(tree, path)
        options = [option for each in last for option in self._options(each, node)]
        known = {key for option in options for key in option.get("properties", ())}
        return sorted(known if path else known - {"base"})  # of files, at the top alone

    def owners(self, tree: Node, path: Sequence[str]) -> list[str]:
        """The types of the parts that have the key at the end of `path`, of those that could stand where it is."""
        *_, (last, _), _ = self._along(tree, path)
        choices = [self.definitions[_name(each)] for each in last if "$ref" in each]
        known = {name: ref for choice in choices if "oneOf" in choice for name, ref in _parts(choice).items()}
        keys = {name: self.definitions[_name({"$ref": ref})].get("properties", {}) for name, ref in known.items()}
        return [name for name in keys if path[-1] in keys[name]]

    def complete(self, tree: Node, path: Sequence[str]) -> str:
        """A file of configs/ that has all of what is at `path`, or around it; empty where none is known."""
        steps = [described for described, _ in self._along(tree, path)]
        named = [name for described in reversed(steps) for each in described for name in each.get(COMPLETE, ())]
        return str(named[0]) if named else ""

    def _along(self, tree: Node, path: Sequence[str]) -> Iterator[tuple[list[Mapping[str, Any]], Node | None]]:
        """What describes `tree`, and what is at each step of the path below it, with the values that are there."""
        node: Node | None = tree
        described = [self.root]
        yield described, node
        for part in path:
            options = [option for each in described for option in self._options(each, node)]
            index = int(part) if node is not None and isinstance(node.value, list) else part
            node = node.child(index) if node is not None else None
            described = [inside for option in options for inside in _inside(option, part)]
            yield described, node

    def validate(self, tree: Node) -> None:
        """Raises pydantic's ValidationError for what the schema excludes in `tree`.

        It is the one that the classes would raise, but for what they check of several keys together.
        """
        SchemaValidator(self._core(self.root)).validate_json(json.dumps(tree.plain()), strict=True)

    def _options(self, schema: Mapping[str, Any], node: Node | None) -> Iterator[Mapping[str, Any]]:
        """The schemas that the value of `node` may have, references followed, parts chosen by their type."""
        if "$ref" in schema:
            yield from self._options(self.definitions[_name(schema)], node)
        elif "oneOf" in schema:
            chosen = node.child("type") if node is not None else None
            name = _default(schema) if chosen is None else chosen.value
            yield from self._options({"$ref": _parts(schema)[name]}, node) if name in _parts(schema) else ()
        elif "anyOf" in schema:
            for option in schema["anyOf"]:
                yield from self._options(option, node)
        else:
            yield schema

    def _core(self, schema: Mapping[str, Any]) -> CoreSchema:
        """What pydantic would have made of the class or annotation that this schema was made from."""
        if LATER in schema:
            return core_schema.any_schema()
        if "$ref" in schema:
            return core_schema.no_info_plain_validator_function(partial(self._referred, _name(schema)))
        if "oneOf" in schema:
            return core_schema.no_info_plain_validator_function(partial(self._choose, schema))
        if "anyOf" in schema:
            some = [self._core(option) for option in schema["anyOf"] if option.get("type") != "null"]
            union = core_schema.union_schema([*some]) if len(some) > 1 else some[0]
            return union if len(some) == len(schema["anyOf"]) else core_schema.nullable_schema(union)
        if "enum" in schema or "const" in schema:
            return core_schema.literal_schema(schema.get("enum") or [schema["const"]])
        return self._plain(schema)

    def _plain(self, schema: Mapping[str, Any]) -> CoreSchema:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind in ("number", "integer"):
            limits = {short: schema[long] for short, long in _LIMITS.items() if long in schema}
            return core_schema.float_schema(**limits) if kind == "number" else core_schema.int_schema(**limits)
        if kind == "string" and "pattern" in schema:
            return TextLike(schema["pattern"], tuple(schema.get("examples", ()))).core_schema()
        if kind == "string":
            return core_schema.str_schema()
        return core_schema.bool_schema() if kind == "boolean" else core_schema.any_schema()

    def _object(self, schema: Mapping[str, Any]) -> CoreSchema:
        if "properties" not in schema:
            more = schema.get("additionalProperties")
            inner = self._core(more) if isinstance(more, Mapping) else core_schema.any_schema()
            return core_schema.dict_schema(values_schema=inner, min_length=schema.get("minProperties"))
        needed = schema.get(NEEDED, ())
        fields = {
            key: core_schema.typed_dict_field(self._core(inner), required=key in needed)
            for key, inner in schema["properties"].items()
        }
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid")

    def _array(self, schema: Mapping[str, Any]) -> CoreSchema:
        if "prefixItems" in schema:
            return core_schema.tuple_schema([self._core(item) for item in schema["prefixItems"]])
        lengths = {"min_length": schema.get("minItems"), "max_length": schema.get("maxItems")}
        return core_schema.list_schema(self._core(schema.get("items", {})), **lengths)

    def _referred(self, name: str, value: Any) -> Any:
        return self.validator(name).validate_json(json.dumps(value), strict=True)

    def _choose(self, schema: Mapping[str, Any], value: Any) -> Any:
        if isinstance(value, str) and "enum" not in schema["oneOf"][-1]:
            raise not_a_part()
        known = _parts(schema)
        name, mapping = named_part(value, list(known), _default(schema))
        return self._referred(_name({"$ref": known[name]}), mapping)


_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _name(schema: Mapping[str, Any]) -> str:
    """The definition that a reference means."""
    return str(schema["$ref"]).removeprefix(_REFERENCE)


def _parts(schema: Mapping[str, Any]) -> dict[str, str]:
    """The references to the parts of a choice, by their types."""
    return {_name(option).rpartition(".")[2]: option["$ref"] for option in schema["oneOf"] if "$ref" in option}


def _default(schema: Mapping[str, Any]) -> str | None:
    """The type that a mapping without one means."""
    name: str | None = schema["oneOf"][0].get("title")
    return name


def _inside(schema: Mapping[str, Any], part: str) -> Iterator[Mapping[str, Any]]:
    """The schema of an entry of a mapping or list."""
    found = schema.get("properties", {}).get(part) or schema.get("additionalProperties") or schema.get("items")
    if isinstance(found, Mapping):
        yield found
