"""Configs of exchangeable parts: a part registers itself under its kind by being defined."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from utils.config.yaml_text import Node

CHOICE_MARK = "x-choice"
MOST = 1e15  # of a number: its square is one in 32 bits too
MOST_WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Origin:
    """Where a config that comes from files was read; two configs of the same values are equal all the same."""

    tree: Node | None = field(default=None, compare=False)


class StrictModel(BaseModel):
    """Base of every config: unknown keys are mistakes, values do not change after validation.

    Every number in it is finite and no larger than can be computed with (`MOST`, `MOST_WHOLE`), whatever its own range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _origin: Origin = PrivateAttr(default_factory=lambda: Origin())

    @field_validator("*")
    @classmethod
    def _numbers_fit(cls, value: Any) -> Any:
        check_numbers(value)
        return value


def check_numbers(value: Any) -> None:
    """Raises ValueError when a number in `value` or in its lists and mappings is too large, or none (NaN)."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            check_numbers(item)
    elif isinstance(value, int) and abs(value) > MOST_WHOLE:
        raise ValueError(f"should be at most {MOST_WHOLE} in size")
    elif isinstance(value, float) and not abs(value) <= MOST:
        raise ValueError(f"should be a number of at most {MOST:g} in size")


class Part(StrictModel):
    """Base of the configs of exchangeable parts.

    A direct subclass is a *kind* (`class EncodingConfig(Part)`). A subclass of a kind that states its type,
    as in `type: Literal["hash_grid"] = "hash_grid"`, is a *part*; defining it registers it. A kind may set
    `default_type`, the part that is meant by a mapping without `type`.
    """

    default_type: ClassVar[str | None] = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        kind = kind_of(cls)
        if kind is cls:
            _registry.setdefault(cls, {})
        elif "type" in inspect.get_annotations(cls):
            _register(kind, cls)


KindT = TypeVar("KindT", bound=Part)
_registry: dict[type[Part], dict[str, type[Part]]] = {}


def kind_of(part: type[Part]) -> type[Part]:
    """The kind that `part` belongs to: the class right below `Part` among its bases."""
    return next(base for base in part.__mro__ if Part in base.__bases__)


def parts(kind: type[KindT]) -> dict[str, type[KindT]]:
    """The parts of `kind` that are registered by now, by type, in alphabetical order."""
    return {name: part for name, part in sorted(_registry[kind].items()) if issubclass(part, kind)}


def registered() -> Iterator[tuple[type[Part], str, type[Part]]]:
    """Kind, type and class of every part that is registered by now."""
    for kind, known in _registry.items():
        yield from ((kind, name, part) for name, part in sorted(known.items()))


def kind_named(name: str) -> type[Part]:
    """The kind whose class is called `name`; there must be one."""
    return next(kind for kind in _registry if kind.__name__ == name)


def discover(package: str) -> None:
    """Import every module in the folder of `package` (a dotted name), so that its parts register."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)


def _register(kind: type[Part], part: type[Part]) -> None:
    field = part.model_fields["type"]
    names = get_args(field.annotation)
    if get_origin(field.annotation) is not Literal or names != (field.default,):
        raise TypeError(f'{part.__qualname__}: write its type as `type: Literal["name"] = "name"`')
    other = _registry[kind].get(names[0])
    # The same class may come twice, by a reloaded module; two classes of one name are a mistake.
    if other and (other.__module__, other.__qualname__) != (part.__module__, part.__qualname__):
        raise TypeError(f"{kind.__name__} {names[0]!r}: {part.__qualname__} and {other.__qualname__}")
    _registry[kind][names[0]] = part


class ChoiceMarker:
    """Makes a field of a kind accept any of its parts, looked up when a value is validated."""

    def __get_pydantic_core_schema__(self, kind: type[Part], handler: GetCoreSchemaHandler) -> CoreSchema:
        # No serializer is named: pydantic then dumps what the value is, with all fields of the part.
        function = partial(self.validate, kind)
        return core_schema.with_info_plain_validator_function(function, metadata={"kind": kind.__name__})

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        inner: Any = schema
        while "kind" not in inner.get("metadata", {}):
            inner = inner["schema"]  # within the field's validators
        return {CHOICE_MARK: inner["metadata"]["kind"]}

    def validate(self, kind: type[Part], value: Any, info: core_schema.ValidationInfo) -> Part:
        """A part of `kind` made from `value`: a mapping with its `type`, an instance, or a name, the type alone."""
        return choose(kind, value, info)


# Defaults of these fields are validated; not those of all fields, because to validate what comes from a file
# is to refuse a default that is a Path.
Choice = Annotated[KindT, Field(validate_default=True), ChoiceMarker()]


def choose(kind: type[Part], value: Any, info: core_schema.ValidationInfo) -> Part:
    """Validate `value` as the part of `kind` that its `type` names; raises pydantic's errors."""
    if isinstance(value, kind):
        return value
    choices = parts(kind)
    name, mapping = named_part(value, list(choices), kind.default_type)
    if info.mode == "json":
        # What comes from a file is checked strictly: no "on" for true, no "5" for 5.
        return choices[name].model_validate_json(json.dumps(mapping), strict=True, context=info.context)
    return choices[name].model_validate(mapping, context=info.context)


def named_part(value: Any, choices: Sequence[str], default: str | None) -> tuple[str, Mapping[str, Any]]:
    """Which part `value` means, and its keys; raises pydantic's errors. default: what is meant without a `type`."""
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise not_a_part()
    listed = ", ".join(choices) or "none"
    name = value.get("type", default)
    if name is None:
        raise PydanticCustomError("missing_type", "`type` is missing; choices: {listed}", {"listed": listed})
    if not isinstance(name, str) or name not in choices:
        context = {"listed": listed, "choices": list(choices)}
        error = PydanticCustomError("unknown_type", "unknown type; choices: {listed}", context)
        line = InitErrorDetails(type=error, loc=("type",), input=name)
        raise ValidationError.from_exception_data("part", [line])
    return name, value


def not_a_part() -> PydanticCustomError:
    """The error for what is neither a mapping nor a name."""
    return PydanticCustomError("not_a_part", "should be a mapping with a `type`")
