"""Endless, rank-aware, resumable stream of ray batches."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio.cameras import Rays
from dataio.permutation import Permutation
from dataio.pictures import Pictures
from dataio.scene import Scene
from utils.errors import InputError

Int64 = npt.NDArray[np.int64]

PREFETCH = 3


@dataclass(frozen=True)
class RayBatch:
    """R rays and what the images say about them."""

    rays: Rays
    color: Tensor  # [R,3] float32 in [0,1]
    mask: Tensor | None = None  # [R] float32 in [0,1], 1 = object
    depth: Tensor | None = None  # [R] float32, distance along the ray in scene units, 0 = unknown
    weight: Tensor | None = None  # [R] float32 >= 0, factor of the ray in the losses
    share: float = 1.0  # of the step's rays
    masked: Tensor | None = None  # [] the step's sum of masks times `share`; None: that of this batch
    measured: Tensor | None = None  # [] the same of known depths

    def __len__(self) -> int:
        return len(self.color)

    def split(self, rays: int | None) -> "list[RayBatch]":
        """Parts of at most so many rays; sums over the parts, times their shares, are those over the whole batch."""
        if rays is None or rays >= len(self):
            return [self]
        parts = [self[begin : begin + rays] for begin in range(0, len(self), rays)]
        shares = [len(part) / len(self) for part in parts]
        masked = None if self.mask is None else self.mask.sum()
        measured = None if self.depth is None else (self.depth > 0).sum()
        return [
            replace(
                part,
                share=share,
                masked=None if masked is None else masked * share,
                measured=None if measured is None else measured * share,
            )
            for part, share in zip(parts, shares, strict=True)
        ]

    def __getitem__(self, index: slice | Tensor) -> "RayBatch":
        mask, depth, weight = (None if x is None else x[index] for x in (self.mask, self.depth, self.weight))
        return RayBatch(self.rays[index], self.color[index], mask, depth, weight)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "RayBatch":
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        return RayBatch(
            rays=self.rays.to(device, non_blocking=non_blocking),
            color=self.color.to(device, non_blocking=non_blocking),
            mask=move(self.mask),
            depth=move(self.depth),
            weight=move(self.weight),
        )


@dataclass(frozen=True)
class _Pixels:
    """What the background thread hands over: numbers only, so that rays are made where the cameras are."""

    camera: Tensor  # [R] int64
    pixel: Tensor  # [R,2] float32, centers at +0.5
    color: Tensor  # [R,3] uint8
    mask: Tensor | None  # [R] uint8
    depth: Tensor | None  # [R] float32, z depth
    end: int  # the stream's position after this batch


class PixelStore:
    """All pixels of some views, where the scene has them; a pixel's number counts through view, row, column."""

    def __init__(self, scene: Scene, views: Int64) -> None:
        """scene: where the views are from. views: [V] indices."""
        self.views = views
        self._color = Pictures.of(scene.images)
        self._mask = None if scene.masks is None else Pictures.of(scene.masks)
        self._depth = None if scene.depths is None else Pictures.of(scene.depths)
        shapes = self._color.shapes[views]
        self.width = shapes[:, 1]
        self.start = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])
        # From numbers among these views to places among all of them.
        self._shift = self._color.start[views] - self.start[:-1]

    def __len__(self) -> int:
        return int(self.start[-1])

    def gather(self, pixels: Int64, end: int) -> _Pixels:
        """The pixels of the given numbers [R]."""
        view = np.searchsorted(self.start, pixels, side="right") - 1
        row, column = np.divmod(pixels - self.start[view], self.width[view])
        point = np.empty((len(pixels), 2), dtype=np.float32)
        point[:, 0], point[:, 1] = column, row
        point += 0.5
        places = pixels + self._shift[view]
        return _Pixels(
            camera=torch.from_numpy(self.views[view]),
            pixel=torch.from_numpy(point),
            color=torch.from_numpy(self._color.take(places)),
            mask=None if self._mask is None else torch.from_numpy(self._mask.take(places)),
            depth=None if self._depth is None else torch.from_numpy(self._depth.take(places)),
            end=end,
        )


class PixelSampler:
    """Iterator of `RayBatch`es: every pixel of a split once per epoch, in an order that the seed decides.

    The batch of rank r at stream position p holds the places p + r * rays ... p + (r + 1) * rays - 1 of the
    order, then the position moves on by rays * world: ranks never share a pixel within an epoch. The position
    is all the state there is. A thread gathers the next batches; rays are made by the caller's thread, on
    the cameras' device.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        split: str = "train",
        rays: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        """rays: per rank and batch. Raises InputError when the split has no views."""
        views = scene.splits.get(split, np.zeros(0, dtype=np.int64))
        if len(views) == 0:
            raise InputError(f"data - got no views in the split {split!r} of {len(scene.names)} views")
        self.position = 0
        self._device = torch.device(device)
        self._cameras = scene.cameras.to(self._device)
        self._store = PixelStore(scene, np.asarray(views, dtype=np.int64))
        self._order = Permutation(len(self._store), seed)
        self._rays, self._rank, self._world = rays, rank, world
        self._worker: _Worker | None = None

    @property
    def pixels(self) -> int:
        """Number of pixels of the split: one epoch."""
        return len(self._store)

    @property
    def epoch(self) -> float:
        """Epochs consumed so far."""
        return self.position / self.pixels

    def __iter__(self) -> "PixelSampler":
        return self

    def __next__(self) -> RayBatch:
        if self._worker is None:
            self._worker = _Worker(self._producer(), self.position)
        pixels = self._worker.take()
        batch = self._on_device(pixels)
        self.position = pixels.end
        return batch

    def state_dict(self) -> dict[str, int]:
        """The number of pixels that all ranks together have consumed."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there, whatever was prefetched."""
        self.close()
        self.position = int(state["position"])

    def close(self) -> None:
        """Stop the thread. The sampler can be used again after it."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def __enter__(self) -> "PixelSampler":
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

    def _producer(self) -> Callable[[int], _Pixels]:
        # The closure holds no reference to the sampler, so that a forgotten sampler is collected.
        store, order = self._store, self._order
        rays, rank, world = self._rays, self._rank, self._world
        pin = self._device.type == "cuda"

        def produce(position: int) -> _Pixels:
            first = position + rank * rays
            pixels = store.gather(order.stream(np.arange(first, first + rays, dtype=np.int64)), position + rays * world)
            return _pinned(pixels) if pin else pixels

        return produce

    def _on_device(self, pixels: _Pixels) -> RayBatch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self._device, non_blocking=True)

        camera = move(pixels.camera)
        rays = self._cameras.rays(camera, move(pixels.pixel))
        depth = None
        if pixels.depth is not None:
            cosine = (rays.directions * self._cameras.forward[camera]).sum(-1)
            depth = move(pixels.depth) / cosine
        return RayBatch(
            rays=rays,
            color=move(pixels.color).float() / 255,
            mask=None if pixels.mask is None else move(pixels.mask).float() / 255,
            depth=depth,
        )


def _pinned(pixels: _Pixels) -> _Pixels:
    return _Pixels(
        camera=pixels.camera.pin_memory(),
        pixel=pixels.pixel.pin_memory(),
        color=pixels.color.pin_memory(),
        mask=None if pixels.mask is None else pixels.mask.pin_memory(),
        depth=None if pixels.depth is None else pixels.depth.pin_memory(),
        end=pixels.end,
    )


class _Worker:
    """A thread that keeps a few batches ready; what it raises is raised where they are taken."""

    def __init__(self, produce: Callable[[int], _Pixels], position: int) -> None:
        self._stop = threading.Event()
        self._ready: queue.Queue[_Pixels | Exception] = queue.Queue(PREFETCH)
        arguments = (produce, position, self._ready, self._stop)
        self._thread = threading.Thread(target=_work, args=arguments, name="pixel-prefetch", daemon=True)
        self._thread.start()

    def take(self) -> _Pixels:
        item = self._ready.get()
        if isinstance(item, Exception):
            # Left there for the next call: the thread has ended and nothing else will come.
            self._ready.put(item)
            raise item
        return item

    def stop(self, *, wait: bool = True) -> None:
        self._stop.set()
        while True:  # make room, so that a blocked thread sees the event
            try:
                self._ready.get_nowait()
            except queue.Empty:
                break
        if wait:
            self._thread.join()


def _work(
    produce: Callable[[int], _Pixels],
    position: int,
    ready: "queue.Queue[_Pixels | Exception]",
    stop: threading.Event,
) -> None:
    try:
        while not stop.is_set():
            item = produce(position)
            position = item.end
            ready.put(item)
    except Exception as error:
        ready.put(error)
