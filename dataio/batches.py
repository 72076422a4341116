"""Endless, rank-aware, resumable stream of ray batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataio.cameras import Rays
from dataio.files import notice
from dataio.pictures.device_pixels import DevicePixels, PixelKernels, Place, lies_on_device
from dataio.pictures.pixel_store import GatheredPixels, PixelStore
from dataio.prefetch import Prefetch
from dataio.quantities.base import quantity
from dataio.scene import Scene
from dataio.selection.base import ChosenOnDevice, SelectionConfig
from dataio.selection.uniform import UniformSelection
from dataio.views import OWN_FIELDS
from utils.entries import Entry
from utils.errors import InputError

__all__ = ["PixelSampler", "PixelStore", "PlannedBatch", "RayBatch"]


@dataclass(frozen=True)
class RayBatch:
    """R rays and what the images say about them."""

    rays: Rays
    color: Tensor  # [R, 3] float32 in [0, 1]
    mask: Tensor | None = None  # [R] float32 in [0, 1], 1 = object
    depth: Tensor | None = None  # [R] float32, distance along the ray in scene units, 0 = unknown
    weight: Tensor | None = None  # [R] float32 >= 0, factor of the ray in the losses
    share: float = 1.0  # of the step's rays
    patch: int | None = None  # side of the squares of neighboring pixels that follow one another, row by row
    further: Mapping[str, Tensor] = field(default_factory=dict)  # [R] or [R, K] other quantities, by name
    # [] by name, the step's numbers of known pixels times `share`; without a name: that of this batch
    totals: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.color)

    def split(self, rays: int | None) -> list[RayBatch]:
        """Parts of at most so many rays; sums over the parts, times their shares, are those over the whole batch.

        rays: where there are patches, a number that keeps them whole.
        """
        if rays is None or rays >= len(self):
            return [self]
        parts = [self[begin : begin + rays] for begin in range(0, len(self), rays)]
        shares = [len(part) / len(self) for part in parts]
        totals = {name: self.total(name) for name in self.quantities}
        return [
            replace(
                part,
                share=share,
                totals={name: total * share for name, total in totals.items()},
                patch=self.patch,
            )
            for part, share in zip(parts, shares, strict=True)
        ]

    def weighed(self, per_ray: Tensor) -> Tensor:
        """[R] times the rays' weights, where there are any. Differentiable in per_ray."""
        return per_ray if self.weight is None else per_ray * self.weight

    @property
    def quantities(self) -> dict[str, Tensor]:
        """[R] or [R, K] by name: all that the images say beside the color."""
        named = {"mask": self.mask, "depth": self.depth, **self.further}
        return {name: values for name, values in named.items() if values is not None}

    def with_quantities(self, values: Mapping[str, Tensor]) -> RayBatch:
        """The same rays with values [R] or [R, K] of these quantities, by name, and no others."""
        rest = {name: each for name, each in values.items() if name not in OWN_FIELDS}
        return replace(self, mask=values.get("mask"), depth=values.get("depth"), further=rest)

    def turned(self, turn: Tensor) -> RayBatch:
        """The same rays with quantities that are directions turned by rotations [R, 3, 3] of their cameras."""
        moved = {
            name: (turn * values[:, None]).sum(-1) if quantity(name).is_direction else values
            for name, values in self.quantities.items()
        }
        return self.with_quantities(moved)

    def pixel(self, name: str) -> Tensor | None:
        """[R] or [R, K] float32, the quantity of this name, as its file in `dataio/quantities` describes it; or None.

        "mask" [R], "depth" [R], "normal" [R, 3] unit, scene frame, 0 = unknown; "confidence" [R] in [0, 1].
        """
        return self.quantities.get(name)

    def known(self, name: str) -> Tensor:
        """[R] float32 in [0, 1], how much of a quantity that is there is known of each pixel."""
        return quantity(name).known(self.quantities[name])

    def total(self, name: str) -> Tensor:
        """[] the weighed number of a quantity's known pixels, or the part's share of the step's."""
        return self.weighed(self.known(name)).sum() if name not in self.totals else self.totals[name]

    def total_mask(self) -> Tensor:
        """[] the weighed sum of masks, or the part's share of the step's."""
        return self.total("mask")

    def total_measured(self) -> Tensor:
        """[] the weighed number of known depths, or the part's share of the step's."""
        return self.total("depth")

    def __getitem__(self, index: slice | Tensor) -> RayBatch:
        weight = None if self.weight is None else self.weight[index]
        part = RayBatch(self.rays[index], self.color[index], weight=weight)
        return part.with_quantities({name: values[index] for name, values in self.quantities.items()})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RayBatch:
        """The same batch on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self.with_quantities({name: move(values) for name, values in self.quantities.items()}),
            rays=self.rays.to(device, non_blocking=non_blocking),
            color=move(self.color),
            weight=None if self.weight is None else move(self.weight),
            totals={name: move(total) for name, total in self.totals.items()},
        )


@dataclass(frozen=True)
class PlannedBatch:
    """A batch whose pixels are on the device and still to be gathered there, by its first place and nothing else.

    So gathering can be recorded together with what is done with the batch, and done again where that failed.
    """

    first: Tensor  # [1] int64, on the device
    make: Callable[[Tensor], RayBatch]
    rays: int

    def __len__(self) -> int:
        return self.rays

    def gathered(self) -> RayBatch:
        """The batch; its memory is that of a recording, where it was gathered within one."""
        return self.make(self.first)


class PixelSampler:
    """Iterator of `RayBatch`es: pixels of a split, which ones a selection says; every one once per epoch if none does.

    The selection has an order that the seed decides, and uses up some places of it per ray. A step of all ranks takes
    the next places from the stream's position on, the first rank the first of them and so on, and the position moves on
    by those of all: ranks never share a place within an epoch, and their number does not change which pixels a step
    takes, where none are chosen. The position is all the state there is, but for what a selection learns. A thread
    gathers the next batches; rays are made by the caller's thread, on the cameras' device. After `keep_on_device` there
    is no thread: kernels choose and gather the same pixels where they lie.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        split: str = "train",
        rays: int,
        seed: int,
        pixels: SelectionConfig | None = None,
        before: int = 0,
        total: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """rays: of a batch. before, total: rays of the ranks before this one, and of all (None: this is the only one).

        Raises InputError when the split has no views, or not those that `pixels` needs.
        """
        views = scene.splits.get(split, np.zeros(0, dtype=np.int64))
        if len(views) == 0:
            raise InputError(f"data - got no views in the split {split!r} of {len(scene.names)} views")
        self.position = 0
        self._device = torch.device(device)
        self._cameras = scene.cameras.to(self._device)
        self._store = PixelStore(scene, np.asarray(views, dtype=np.int64))
        self._selection = (pixels or UniformSelection()).build(self._store, rays=rays, seed=seed)
        self._patch = pixels.patch if pixels else None
        self._share(rays, before, total or rays)
        self._on_gpu: DevicePixels | None = None
        self._choose: Callable[[Tensor], ChosenOnDevice] | None = None
        # Of the last batch; where a recorded step gathered it, in memory that each replay fills anew.
        self.batch: RayBatch | None = None
        self._bins: Tensor | None = None
        self._importance: Tensor | None = None
        self._worker: Prefetch | None = None

    def _share(self, rays: int, before: int, total: int) -> None:
        places = self._selection.places
        self._places_before, self._places = places * before // rays, places * total // rays
        self._rays = rays

    def resize(self, *, rays: int, before: int, total: int) -> None:
        """Batches of so many rays from here on, which begin where the last one of all ranks ended; all as they began.

        rays, before, total: of this rank, of those before it, and of all; each a whole number of patches.
        """
        self.close()  # what was chosen ahead is chosen anew
        self._selection.resize(rays)
        self._share(rays, before, total)

    @property
    def pixels(self) -> int:
        """Number of pixels of the split: one epoch."""
        return len(self._store)

    @property
    def epoch(self) -> float:
        """How often the selection's order was gone through so far."""
        return self.position / self._selection.order.count

    def __iter__(self) -> PixelSampler:
        return self

    def __next__(self) -> RayBatch:
        planned = self.plan()
        return planned if isinstance(planned, RayBatch) else planned.gathered()

    def plan(self) -> RayBatch | PlannedBatch:
        """The next batch; where the pixels are on the device, one that is still to be gathered there."""
        if self._choose is not None:
            first = torch.full((1,), self.position + self._places_before, dtype=torch.int64, device=self._device)
            self.position += self._places
            return PlannedBatch(first, self._gathered, self._rays)
        if self._worker is None:
            self._worker = Prefetch(self._producer(), self.position)
        pixels = self._worker.take()
        batch = self._batch_of(pixels)
        self.position = pixels.end
        return batch

    def keep_on_device(self, kernels: PixelKernels, place: Place) -> None:
        """Have kernels choose and gather on this sampler's device from now on, where `place` and its memory allow it.

        The pixels are the same, bit for bit. Raises InputError where `place` asks for what is not there.
        """
        if not lies_on_device(self._store, self._device, place):
            return
        self.close()
        pixels = DevicePixels(self._store, self._device, kernels)
        self._choose = self._selection.on_device(pixels)
        self._on_gpu = None if self._choose is None else pixels
        if self._choose is None and place == "gpu":
            raise InputError("data.device: gpu - this train.pixels chooses on the host - expected auto or host")
        if self._choose is None:
            notice("data.device: this train.pixels chooses on the host, which gathers the pixels of each step")

    @property
    def in_memory(self) -> int:
        """Bytes of all stored pixels in the memory of this sampler's device."""
        if self._device.type != "cpu":
            return 0 if self._on_gpu is None else self._store.size
        return sum(pictures.in_memory for pictures in self._store.pictures.values())

    @property
    def chooses(self) -> bool:
        """Whether the last batch's pixels were chosen, some with a higher probability than others."""
        return self._importance is not None

    def unbiased_mean(self, error: Tensor) -> float | None:
        """The mean of the last batch's errors [R] as of pixels drawn alike, in expectation; None where they are.

        Waits for a GPU.
        """
        if self._importance is None:
            return None
        return float((self._importance * error.to(self._importance.device)).mean())

    def learn(self, error: Tensor) -> None:
        """Pass the errors of the last batch's rays to the selection; all ranks, after every batch.

        error: [R] mean squared difference of colors, detached, on this sampler's device.
        """
        if self._bins is not None and self._selection.learn(self._bins, error):
            self.close()  # what was chosen ahead is chosen anew

    def state_dict(self) -> dict[str, Any]:
        """The number of places that all ranks together have consumed, and what was learned; all ranks, together."""
        learned = self._selection.state_dict()
        return {"position": self.position, **({"selection": learned} if learned else {})}

    def load_state_dict(self, state: dict[str, Any], *, source: str = "a stream of pixels") -> None:
        """Go on from there, whatever was prefetched. Raises InputError, with its source, for what is no such state."""
        self.close()
        saved = Entry(state, "sampler", source)
        self.position = saved["position"].whole()
        if not saved["selection"].missing:
            self._selection.load_state_dict(saved["selection"], main=self._places_before == 0)

    def close(self) -> None:
        """Stop the thread. The sampler can be used again after it."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def free(self) -> None:
        """As `close`; pixels in a device's memory are given up, and the host gathers from then on."""
        self.close()
        self._choose, self._on_gpu, self.batch = None, None, None

    def __enter__(self) -> PixelSampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Half-built samplers come here too, when the constructor raised.
        worker = getattr(self, "_worker", None)
        if worker is not None:
            worker.stop(wait=False)

    def _producer(self) -> Callable[[int], GatheredPixels]:
        # The closure holds no reference to the sampler, so that a forgotten sampler is collected.
        store, selection, before, places = self._store, self._selection, self._places_before, self._places
        pin = self._device.type == "cuda"

        def produce(position: int) -> GatheredPixels:
            chosen = selection.choose(position + before)
            pixels = replace(
                store.gather(chosen.pixels, position + places),
                weight=None if chosen.weight is None else torch.from_numpy(chosen.weight),
                bins=None if chosen.bins is None else torch.from_numpy(chosen.bins),
                importance=None if chosen.importance is None else torch.from_numpy(chosen.importance),
            )
            return pixels.pinned() if pin else pixels

        return produce

    def _gathered(self, first: Tensor) -> RayBatch:
        """The batch whose places begin at `first` [1] int64."""
        assert self._on_gpu is not None and self._choose is not None
        chosen = self._choose(first)
        pixels = self._on_gpu.gather(chosen.pixels)
        return self._batch_of(replace(pixels, weight=chosen.weight, bins=chosen.bins, importance=chosen.importance))

    def _batch_of(self, pixels: GatheredPixels) -> RayBatch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self._device, non_blocking=True)

        rays = self._cameras.rays(move(pixels.camera), move(pixels.pixel))
        values = {
            name: quantity(name).of_pixels(move(numbers), rays, self._cameras)
            for name, numbers in pixels.quantities.items()
        }
        self._bins = None if pixels.bins is None else move(pixels.bins)
        self._importance = pixels.importance
        self.batch = RayBatch(
            rays=rays,
            color=move(pixels.color).float() / 255,
            weight=None if pixels.weight is None else move(pixels.weight),
            patch=self._patch,
        ).with_quantities(values)
        return self.batch
