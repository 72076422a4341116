"""How much memory a training takes at most, by part, before its first step; and its end where there is less."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel
from torch import Tensor

from engine.build import check_optimizer, groups_of, rule_of
from engine.experiment import MOST_RAYS, ExperimentConfig
from models.capacity import Capacity
from models.encodings.base import Encoding, EncodingConfig
from models.volume import Volume
from utils import memory
from utils.errors import InputError

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays
    from dataio.scene import Inspection
    from engine.trainer import Trainer
    from models.model import Model
    from models.samples import RaySamples
    from models.volume import Medium

NUMBER = 4  # bytes
ASKED = 256  # rays of which the samples are counted
OF_A_SAMPLE = 56  # numbers beside those of networks: positions, views, intervals, value, color, and sums over them
OF_A_LOOK = 24  # the same of a sample of which the value alone is asked
WRITTEN_TWICE = 2  # a checkpoint, by torch into memory, and read back from the disk
LARGE = 0.1  # of the largest table: those that are to be lowered with it


@dataclass(frozen=True)
class Estimate:
    """Bytes of one process. Kept during the run: pictures, parameters, buffers, moments, and the gradient.

    Beside these, one after another: samples, the graph of a step's rays; change, of a layout; checkpoint, while it is
    written, which takes none on a GPU.
    """

    parameters: int
    moments: int
    gradient: int
    buffers: int = 0
    pictures: int = 0
    samples: int = 0
    change: int = 0
    checkpoint: int = 0

    @property
    def kept(self) -> int:
        """Of all that stays."""
        return self.pictures + self.parameters + self.buffers + self.moments + self.gradient

    @property
    def least(self) -> int:
        """Without what smaller micro-batches do without."""
        return self.kept + max(self.change, self.checkpoint)

    @property
    def most(self) -> int:
        """The largest sum at any time."""
        return self.kept + max(self.samples, self.change, self.checkpoint)

    def line(self) -> str:
        """For the user."""
        return f"memory: at most {size(self.most)}: {self.parts()}"

    def parts(self) -> str:
        """What is kept, and what comes on top of it, in words."""
        kept = {"pictures": self.pictures, "parameters": self.parameters, "gradient": self.gradient}
        kept |= {"the optimizer's moments": self.moments, "buffers": self.buffers}
        for_a_while = {"samples of a step": self.samples, "a change of the layout": self.change}
        for_a_while |= {"a checkpoint being written": self.checkpoint}
        return f"{_listed(kept)}; beside them at a time {_listed(for_a_while)}"


def _listed(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in parts.items() if count) or "nothing"


def size(count: int) -> str:
    """Bytes in words, units of 1000."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(round(count / 1e6), 1)} MB"


def check_memory(config: ExperimentConfig, device: torch.device) -> tuple[Estimate, Model]:
    """What a run takes without its pictures and samples, and its model, as it is without data.

    Raises InputError, before anything is built, for tables that do not fit into the memory that is free; then as
    `check_optimizer`, and for a model that does not.
    """
    free = free_memory(device)
    refuse(_of_tables(config, device), config, free)
    model = check_optimizer(config)
    found = of_model(config, model, device)
    refuse(found, config, free)
    return found, model


def _of_tables(config: ExperimentConfig, device: torch.device) -> Estimate:
    """What tables take alone, by their layout."""
    sizes = {name: NUMBER * encoding.numbers for name, encoding in encodings(config.model)}
    moments = sum(count * rule_of(config.optimizer, name).moments for name, count in sizes.items())
    return _with_checkpoint(Estimate(sum(sizes.values()), moments, sum(sizes.values())), device, 0)


def of_model(config: ExperimentConfig, model: Model, device: torch.device) -> Estimate:
    """What a model takes, with the optimizer of a config, beside pictures and samples."""
    groups = [(own, sum(p.nbytes for p in parameters)) for own, parameters in groups_of(config.optimizer, model)]
    parameters = sum(count for _, count in groups)
    losses = sum(loss.kept(model) for loss in config.losses.values())
    changes = [part.bytes_of_change() for part in model.modules() if isinstance(part, Encoding)]
    found = Estimate(
        parameters=parameters,
        moments=sum(own.moments * count for own, count in groups),
        gradient=parameters,
        buffers=sum(buffer.nbytes for buffer in model.buffers()),
        samples=losses,
        change=max(changes, default=0),
    )
    saved = sum(value.nbytes for value in model.state_dict().values() if isinstance(value, Tensor))
    return _with_checkpoint(found, device, saved - parameters)


def _with_checkpoint(found: Estimate, device: torch.device, buffers: int) -> Estimate:
    """buffers: bytes of those that are saved."""
    written = WRITTEN_TWICE * (found.parameters + found.moments + buffers)
    return replace(found, checkpoint=written if device.type == "cpu" else 0)


def encodings(config: BaseModel, name: str = "") -> Iterator[tuple[str, EncodingConfig]]:
    """The encodings within a config and their keys, dotted: as parameters are called, below a model's config."""
    for key in type(config).model_fields:
        value, full = getattr(config, key), f"{name}.{key}" if name else key
        if isinstance(value, EncodingConfig):
            yield full, value
        if isinstance(value, BaseModel):
            yield from encodings(value, full)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still get: of the device, or its share of the host's."""
    if device.type != "cpu":
        return int(torch.cuda.mem_get_info(device)[0])
    return memory.free() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def refuse(needed: Estimate, config: ExperimentConfig, free: int) -> None:
    """Raises InputError for a run that takes more than is free even with small micro-batches, with the keys to lower.
    """
    if needed.least <= free:
        return
    raise InputError(
        f"this run needs {size(needed.least)} of memory ({needed.parts()}), {size(max(free, 0))} are free -"
        f" {_advice(needed, config, free)}"
    )


def _advice(needed: Estimate, config: ExperimentConfig, free: int) -> str:
    """The keys of the largest tables, with values that fit."""
    known = [(name, encoding) for name, encoding in encodings(config.model) if encoding.numbers]
    largest = max((encoding.numbers for _, encoding in known), default=0)
    tables = [(name, encoding) for name, encoding in known if encoding.numbers >= LARGE * largest]
    each = (needed.least - needed.pictures - needed.buffers) / max(needed.parameters, 1)  # for a byte of a parameter
    share = 1 - (needed.least - free) / max(each * NUMBER * sum(encoding.numbers for _, encoding in tables), 1)
    lowered = [(name, encoding.lowered(share)) for name, encoding in tables] if share > 0 else []
    found = [f"model.{name}.{key}" for name, key in lowered if key]
    return f"expected about {' '.join(found)}" if found else "expected a smaller model, or a machine with more memory"


def before_data(found: Estimate, config: ExperimentConfig, model: Model, data: Inspection) -> Estimate:
    """The same with pictures and samples, as far as data say them that were not decoded.

    model: as it is without data, on the CPU. What the data's masks show to be free is not known to it: there may be
    fewer samples.
    """
    found = replace(found, pictures=data.pixels)
    if data.outline is None:
        return found
    rays, samples = config.train.micro_batch or config.train.rays or MOST_RAYS, config.train.samples
    return _with_samples(_ready(model, 0.0), found, data.outline().cameras, rays=rays, samples=samples)


def before_steps(found: Estimate, trainer: Trainer) -> Estimate:
    """The same with pictures and samples of a run that is about to begin or to go on; leaves it as it is."""
    model, gradients = trainer.objective.model, trainer.gradients
    if trainer.step == 0:
        _ready(model, trainer.progress)
    copies = 1 + gradients.threads if gradients.threads > 1 else 1  # threads have a gradient each
    found = replace(found, pictures=trainer.sampler.in_memory, gradient=copies * found.gradient)
    samples = trainer.ray_count.own_samples
    rays = gradients.most_at_once(trainer.ray_count.share.own if samples is None else MOST_RAYS)
    cameras = trainer.scene.cameras.to(trainer.ranks.device)
    return _with_samples(model, found, cameras, rays=rays, samples=samples)


def _ready(model: Model, progress: float) -> Model:
    """The model, as its first step will make it ready too."""
    model.update(progress)
    for medium in model.media:
        medium.sampler.refresh(medium, 0)
    return model


def _with_samples(
    model: Model, found: Estimate, cameras: Cameras, *, rays: int, samples: int | None = None
) -> Estimate:
    """The same with the samples of so many rays, whose graph is in memory at once.

    model: as before a step. cameras: of its scene, on its device. samples: how many a step keeps, of which the rays
    are no more than those that keep so many.
    """
    asked = _some_rays(cameras)
    found_of = [_of_samples(medium, asked) for medium in model.media]
    each, kept = (sum(counts) / len(asked) for counts in zip(*found_of, strict=True))
    rays = rays if samples is None else min(rays, round(samples / max(kept, 1.0)))
    for capacity in (part for part in model.modules() if isinstance(part, Capacity)):
        capacity.demand.zero_()  # what was asked here is no step
    return replace(found, samples=found.samples + round(each * rays))


def _some_rays(cameras: Cameras) -> Rays:
    """Rays evenly over the pictures of all cameras; the same at each call."""
    number = torch.arange(ASKED, device=cameras.size.device)
    camera = number % len(cameras)
    share = torch.stack([(number + 0.5) / ASKED, (number * 0.618034) % 1.0], -1)  # a lattice without clumps
    return cameras.rays(camera, share * cameras.size[camera])


@torch.no_grad()
def _of_samples(medium: Medium, rays: Rays) -> tuple[int, int]:
    """Bytes of some rays' samples in a medium, of the graph, or of the choice; and how many of them are kept.

    A medium ahead hides none of them.
    """
    with torch.random.fork_rng(devices=[]):
        samples = medium.sampler(medium.bounds.clip(rays), medium)
    looked_at = medium.sampler.more_to_come() * NUMBER * samples.t.numel() * (OF_A_LOOK + medium.field.passed())
    found = max(_graph(medium, samples), round(looked_at))  # first they are chosen, then the graph is made
    if samples.proposal is not None:
        proposals = (part for part in medium.sampler.children() if isinstance(part, Volume))
        found += sum(_graph(part, samples.proposal.samples) for part in proposals)
    return found, samples.t.numel()


def _graph(volume: Volume, samples: RaySamples) -> int:
    """Bytes that a volume keeps of samples until their backward pass is over."""
    return NUMBER * samples.t.numel() * (OF_A_SAMPLE + volume.field.kept() + volume.appearance.kept())
