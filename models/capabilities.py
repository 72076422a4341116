"""What parts offer and need of one another, declared on their configs, so that nonsense is refused before any data.

An `Offer` is defined once, beside the part that first gives it; whoever needs it names the same object. Those that
several kinds of parts know stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pydantic_core import PydanticCustomError

from utils.config.parts import Part, registered


@dataclass(frozen=True)
class Offer:
    """Something that a part may offer. Two of one name are the same.

    words: what it is, as "needs ..." goes on where it is missing. gives: of a kind of value, what its numbers mean.
    """

    name: str
    words: str = field(compare=False)
    gives: str = field(default="", compare=False)


# Kinds of value: a distance in scene units, positive outside; a raw density; the logit of being inside.
SDF = Offer("sdf", "signed distances", "a distance, positive outside")
DENSITY = Offer("density", "a density", "a density, larger inside")
LOGIT = Offer("logit", "a logit", "a logit, larger inside")
GRADIENT = Offer("gradient", "a field with a gradient")
SURFACE = Offer("surface", "a field whose sign tells inside from outside")
# Where bounds lie.
INSIDE = Offer("inside", "inside the unit sphere")
OUTSIDE = Offer("outside", "beyond the unit sphere")
EVERYWHERE = Offer("everywhere", "in all of space, contracted")


class FieldOffer(Protocol):
    """What a field's config says of it: `models.fields.base.FieldConfig`."""

    @property
    def value_kind(self) -> Offer: ...
    @property
    def covers(self) -> frozenset[Offer]: ...


class Needing(Protocol):
    """What a part's config asks of a field."""

    @property
    def needs(self) -> frozenset[Offer]: ...


class OpacityNeed(Needing, Protocol):
    """What an opacity's config asks of a field: `models.opacities.base.OpacityConfig`."""

    def misfit(self, kind: Offer) -> str: ...


class SamplerNeed(Needing, Protocol):
    """What a sampler's config asks of field and bounds: `models.samplers.base.SamplerConfig`."""

    @property
    def covers(self) -> frozenset[Offer]: ...


class BoundsOffer(Protocol):
    """Where bounds lie: `models.bounds.base.BoundsConfig`."""

    @property
    def region(self) -> Offer: ...


@dataclass(frozen=True)
class DataFacts:
    """Facts for the warnings of a field's config: whether the photographs have masks and the model a background, and,
    when called, whether the photographs look from one side only, and the path of a config that suits them.
    """

    masks: bool
    background: bool  # or a backdrop
    one_sided: Callable[[], bool]
    suited: Callable[[], str]


def offered(part: object) -> frozenset[Offer]:
    """All that a part's config offers, with what the parts within it do: a grid's field has a grid."""
    own: frozenset[Offer] = getattr(part, "offers", frozenset())
    kind = getattr(part, "value_kind", None)
    inner = vars(part).values() if isinstance(part, Part) else ()
    within = [offered(value) for value in inner if isinstance(value, Part)]
    return own.union({kind} if kind is not None else (), *within)


def missing(needs: frozenset[Offer], offers: frozenset[Offer]) -> str:
    """What is needed and not offered, in words, with the types that would give it; empty when nothing is."""
    lacking = sorted(needs - offers, key=lambda offer: offer.name)
    return " and ".join(f"{offer.words}{_given_by(offer)}" for offer in lacking)


def _given_by(offer: Offer) -> str:
    """The registered parts that offer it, as ` (field.type: sdf or occupancy)`; empty where none says so."""
    found: dict[str, list[str]] = {}
    for kind, name, part in registered():
        if offer in getattr(part, "offers", ()) or offer == getattr(part, "value_kind", None):
            found.setdefault(kind.__name__.removesuffix("Config").lower(), []).append(name)
    return "".join(f" ({kind}.type: {' or '.join(names)})" for kind, names in found.items())


def misfits_of_volume(field: FieldOffer, appearance: Needing, opacity: OpacityNeed) -> Iterator[str]:
    """One line for each reason why this field does not suit the other two: what does not fit, why, what would."""
    reason, kind, offers = opacity.misfit(field.value_kind), type_of(field), offered(field)
    if reason:
        yield f"opacity.type: {type_of(opacity)} {reason}; field.type: {kind} gives {field.value_kind.gives}"
    elif lacking := missing(opacity.needs, offers):
        yield f"opacity.type: {type_of(opacity)} needs {lacking}; field.type: {kind} gives none"
    if lacking := missing(appearance.needs, offers):
        yield f"appearance.type: {type_of(appearance)} needs {lacking} for the normal; field.type: {kind} gives none"


def misfits_of_medium(bounds: BoundsOffer, field: FieldOffer, sampler: SamplerNeed) -> Iterator[str]:
    """One line for each reason why a field cannot be sampled so within these bounds."""
    parts: tuple[tuple[str, FieldOffer | SamplerNeed], ...] = (("field", field), ("sampler", sampler))
    for key, part in parts:
        if bounds.region not in part.covers:
            covered = " or ".join(sorted(region.words for region in part.covers))
            lies = f"this medium lies {bounds.region.words} (bounds: {type_of(bounds)})"
            yield f"{key}.type: {type_of(part)} works {covered} only, {lies}"
    lacking = missing(sampler.needs, offered(field))
    if lacking:
        gives = f"field.type: {type_of(field)} gives {field.value_kind.gives}"
        yield f"sampler.type: {type_of(sampler)} needs {lacking}; {gives}"


def refuse(reasons: Iterable[str]) -> None:
    """Raise a validation error with all reasons, if there are any."""
    found = " - and ".join(reasons)
    if found:
        raise PydanticCustomError("misfit", "{reasons}", {"reasons": found})


def type_of(part: object) -> str:
    """The `type` of a part's config."""
    return str(getattr(part, "type", type(part).__name__))
