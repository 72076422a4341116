"""What parts offer and need of one another, declared on their configs, so that nonsense is refused before any data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic_core import PydanticCustomError

# sdf: distance in scene units, positive outside; density: raw, larger is inside; logit: of being inside.
ValueKind = Literal["sdf", "density", "logit"]
Bounds = Literal["sphere", "outside"]
# gradient: the field's gradient comes with its value. surface: the sign of the value tells inside from outside.
Capability = Literal["sdf", "density", "logit", "gradient", "surface"]

KINDS: dict[ValueKind, str] = {
    "sdf": "a distance, positive outside",
    "density": "a density, larger inside",
    "logit": "a logit, larger inside",
}
WORDS: dict[Capability, str] = {
    "sdf": "signed distances (field.type: sdf)",
    "density": "a density (field.type: radiance)",
    "logit": "a logit (field.type: occupancy)",
    "gradient": "a field with a gradient (field.type: sdf or occupancy)",
    "surface": "a field whose sign tells inside from outside (field.type: sdf or occupancy)",
}


class FieldOffer(Protocol):
    """What a field's config says of it: `models.fields.base.FieldConfig`."""

    @property
    def value_kind(self) -> ValueKind: ...
    @property
    def gives_gradient(self) -> bool: ...


class OpacityNeed(Protocol):
    """What an opacity's config asks of a field: `models.opacities.base.OpacityConfig`."""

    @property
    def needs_gradient(self) -> bool: ...
    def misfit(self, kind: ValueKind) -> str: ...


class SamplerNeed(Protocol):
    """What a sampler's config asks of field and bounds: `models.samplers.base.SamplerConfig`."""

    @property
    def needs(self) -> frozenset[Capability]: ...


class Bounded(Protocol):
    """A config that says within which bounds its part works."""

    @property
    def covers(self) -> frozenset[Bounds]: ...


class BoundedField(FieldOffer, Bounded, Protocol):
    """Both."""


class BoundedSampler(SamplerNeed, Bounded, Protocol):
    """Both."""


@dataclass(frozen=True)
class DataFacts:
    """Facts for the warnings of a field's config: whether the photographs have masks and the model a background, and,
    when called, whether the photographs look from one side only.
    """

    masks: bool
    background: bool
    one_sided: Callable[[], bool]


def offered(field: FieldOffer) -> frozenset[Capability]:
    """All that a field offers to samplers and losses."""
    found: set[Capability] = {field.value_kind}
    if field.gives_gradient:
        found.add("gradient")
    if field.value_kind != "density":
        found.add("surface")
    return frozenset(found)


def missing(needs: frozenset[Capability], offers: frozenset[Capability]) -> str:
    """What is needed and not offered, in words; empty when nothing is."""
    return " and ".join(WORDS[name] for name in sorted(needs - offers))


def misfits_of_volume(field: FieldOffer, opacity: OpacityNeed) -> Iterator[str]:
    """One line for each reason why this opacity makes no sense of this field: what does not fit, why, what would."""
    reason = opacity.misfit(field.value_kind)
    if reason:
        yield f"opacity.type: {_type(opacity)} {reason}; field.type: {_type(field)} gives {KINDS[field.value_kind]}"
    elif opacity.needs_gradient and not field.gives_gradient:
        yield f"opacity.type: {_type(opacity)} needs {WORDS['gradient']}; field.type: {_type(field)} gives none"


def misfits_of_medium(bounds: Bounds, field: BoundedField, sampler: BoundedSampler) -> Iterator[str]:
    """One line for each reason why a field cannot be sampled so within these bounds."""
    where = {"sphere": "inside the unit sphere", "outside": "beyond the unit sphere"}
    parts: tuple[tuple[str, Bounded], ...] = (("field", field), ("sampler", sampler))
    for key, part in parts:
        if bounds not in part.covers:
            covered = " or ".join(where[name] for name in sorted(part.covers))
            yield f"{key}.type: {_type(part)} works {covered} only, this medium lies {where[bounds]} (bounds: {bounds})"
    lacking = missing(sampler.needs, offered(field))
    if lacking:
        gives = KINDS[field.value_kind]
        yield f"sampler.type: {_type(sampler)} needs {lacking}; field.type: {_type(field)} gives {gives}"


def refuse(reasons: Iterable[str]) -> None:
    """Raise a validation error with all reasons, if there are any."""
    found = " - and ".join(reasons)
    if found:
        raise PydanticCustomError("misfit", "{reasons}", {"reasons": found})


def _type(part: object) -> str:
    return str(getattr(part, "type", type(part).__name__))
