"""Structure that changes during training: who is asked, and what is to be forgotten then.

Capacity is fixed for a run and the layout varies: tables have their final number of rows from the start, so that the
optimizer's groups, what ranks exchange and checkpoints never change shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from models.encodings.base import Encoding
from models.fields.base import Field
from models.samplers.base import Sampler
from models.volume import Volume


@dataclass(frozen=True)
class LayoutChange:
    """A part whose layout changed: its name in the model, what happened, and its parameters that were resampled."""

    name: str
    what: str
    parameters: list[nn.Parameter]


def structures(model: nn.Module) -> Iterator[tuple[str, Encoding | Sampler]]:
    """The parts of a model that divide space, and their names in it."""
    for name, part in model.named_modules():
        if isinstance(part, Encoding | Sampler):
            yield name, part


def measures(model: nn.Module) -> dict[str, float]:
    """How large all structure is by now, as `foreground.sampler/occupied_share`; synchronizes."""
    return {f"{name}/{key}": value for name, part in structures(model) for key, value in part.measures().items()}


def refreshed(model: nn.Module, step: int, progress: float) -> Iterator[LayoutChange]:
    """Ask every field and encoding of `model` to change its layout if it is time to; yields those that did.

    progress: share of the run that is done, in [0, 1]. Must be called alike on all ranks.
    """
    for name, part in model.named_modules():
        changed: Encoding | Field | None = None
        if isinstance(part, Encoding) and part.refresh(progress):
            changed = part
        elif isinstance(part, Volume) and part.field.refresh(part, step):
            name, changed = f"{name}.field", part.field
        if changed is not None:
            yield LayoutChange(name, changed.latest_change(), changed.resampled())
