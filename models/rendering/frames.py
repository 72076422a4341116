"""Whole images as streams of tiles, in chunks of constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.model import Model
from models.rendering.surface import Surface

if TYPE_CHECKING:
    from dataio.cameras import Cameras, Rays


FIRST_CHUNK = {"cpu": 1 << 10, "cuda": 1 << 12}  # rays
LEAST_CHUNK = 256
SAMPLES = {"cpu": 1 << 16, "cuda": 1 << 19}  # at a time
# Rays at a time, where each takes one sample. Few enough that torch works on them in one thread, and they stay in a
# core's cache; a GPU wants many.
CHUNK = {"cpu": 1 << 13, "cuda": 1 << 20}


@dataclass(frozen=True)
class Frame:
    """An image on the CPU.

    color: [H, W, 3] in [0, 1]. depth: [H, W] ray distance in scene units, 0 where the ray meets nothing. normal:
    [H, W, 3] scene frame, length at most 1. opacity: [H, W] of the foreground, in [0, 1]. A color or a normal that the
    renderer does not make is zero.
    """

    color: Tensor
    depth: Tensor
    normal: Tensor
    opacity: Tensor


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What R rays see: as of `Frame`, depth [R] and opacity [R], color [R, 3] and normal [R, 3] or None."""

    depth: Tensor
    opacity: Tensor
    color: Tensor | None = None
    normal: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Tile(Seen):
    """Some pixels of an image, on the CPU, each of them once in the whole stream.

    pixels: [R] int64, y * width + x. step: until a finer tile comes, each pixel may stand for the square of this side
    of which it is the upper left corner.
    """

    pixels: Tensor
    step: int

    @staticmethod
    def of(pixels: Tensor, step: int, seen: Seen) -> Tile:
        """What rays through pixels [R] have seen, brought to the CPU at once."""
        parts = [seen.depth[:, None], seen.opacity[:, None]]
        wide = [part for part in (seen.color, seen.normal) if part is not None]
        here = torch.cat([*parts, *wide], 1).cpu()
        vectors = iter(here[:, 2:].split(3, 1))
        color, normal = (None if part is None else next(vectors) for part in (seen.color, seen.normal))
        color = None if color is None else color.clamp(0, 1)
        depth, opacity = here[:, 0], here[:, 1]
        return Tile(pixels=pixels.cpu(), step=step, depth=depth, opacity=opacity, color=color, normal=normal)


@dataclass(frozen=True)
class Pass:
    """The pixels of an image that stand `step` apart in both axes, in the order of rows; computed when asked for.

    new: only those that the pass of twice the step has left out, row 0 and 1 before 2 and 3, and so on.
    """

    width: int
    height: int
    step: int
    new: bool

    def _counts(self) -> tuple[int, int]:
        """Columns, and those of them that are new in a row of the coarser pass."""
        columns = -(-self.width // self.step)
        return columns, columns // 2

    def __len__(self) -> int:
        columns, odd = self._counts()
        rows = -(-self.height // self.step)
        return rows // 2 * columns + (rows - rows // 2) * odd if self.new else rows * columns

    def pixels(self, start: int, stop: int, device: torch.device) -> Tensor:
        """[P] int64, y * width + x of the pixels number start ... stop - 1 of the pass."""
        columns, odd = self._counts()
        number = torch.arange(start, min(stop, len(self)), device=device)
        if self.new:
            pair, rest = number // (columns + odd), number % (columns + odd)
            row = 2 * pair + (rest >= odd)
            column = torch.where(rest < odd, 2 * rest + 1, rest - odd)
        else:
            row, column = number // columns, number % columns
        return self.step * (row * self.width + column)


def passes(width: int, height: int, coarse: int = 1) -> list[Pass]:
    """Passes that together hold every pixel once: every `coarse`-th, then at half the step, and so on down to one.

    Raises ValueError where `coarse` is no power of two.
    """
    if coarse < 1 or coarse & (coarse - 1):
        raise ValueError(f"coarse: a power of two expected, got {coarse}")
    steps = [coarse >> i for i in range(coarse.bit_length())]
    return [Pass(width, height, step, new=step < coarse) for step in steps]


def size_of(cameras: Cameras, index: int) -> tuple[int, int]:
    """Width and height of an image."""
    width, height = (int(x) for x in cameras.size[index])
    return width, height


CENTER = ((0.5, 0.5),)


def through(cameras: Cameras, index: int, pixels: Tensor, width: int, place: tuple[float, float] = CENTER[0]) -> Rays:
    """The rays of camera `index` through pixels [R], y * width + x, at a place in them: (0, 0) to (1, 1)."""
    at = torch.stack([pixels % width + place[0], pixels // width + place[1]], -1)
    return cameras.rays(torch.full_like(pixels, index), at)


def directions_of(cameras: Cameras, index: int, step: int = 1) -> Tensor:
    """[H, W, 3] of the rays of camera `index` through every `step`-th pixel in both axes, scene frame."""
    width, height = size_of(cameras, index)
    part = Pass(width, height, step, new=False)
    rays = through(cameras, index, part.pixels(0, len(part), cameras.size.device), width)
    return rays.directions.view(-(-height // step), -(-width // step), 3)


def places_in_pixel(side: int) -> tuple[tuple[float, float], ...]:
    """The middles of side x side equal parts of a pixel."""
    steps = [(i + 0.5) / side for i in range(side)]
    return tuple((x, y) for y in steps for x in steps)


@torch.no_grad()
def tiles(
    model: Model | Surface,
    cameras: Cameras,
    index: int,
    *,
    coarse: int = 1,
    samples: int | None = None,
    photograph: bool = False,
) -> Iterator[Tile]:
    """The image of camera `index`, tile by tile; cameras in the scene frame, on the model's device.

    photograph: whether the cameras are those of the scene that the model was trained on, so that the index means what
    was learned of that photograph; otherwise the mean of all stands in.

    coarse: the first tiles hold every so manyth pixel in both axes, a power of two, and the next ones refine them
    (`passes`); 1: row by row. Whoever stops iterating stops the work: nothing is evaluated ahead, and closing the
    generator sets the model back to its mode. samples: about how many are in memory at a time, None: what suits the
    device; the number of rays in a tile follows the samples that the last tile's rays took. The image does not depend
    on it. A tile that does not fit a GPU's memory is halved, and so are those after it; raises torch.OutOfMemoryError
    when that does not help.
    """
    training = model.training
    model.eval()
    try:
        yield from _model_tiles(model, cameras, index, coarse, samples, photograph)
    finally:
        model.train(training)


def _model_tiles(
    model: Model | Surface, cameras: Cameras, index: int, coarse: int, samples: int | None, photograph: bool
) -> Iterator[Tile]:
    (width, height), device = size_of(cameras, index), cameras.size.device
    samples, rays = samples or SAMPLES[device.type], FIRST_CHUNK[device.type]
    for part in passes(width, height, coarse):
        done = 0
        while done < len(part):
            pixels = part.pixels(done, done + rays, device)
            count, way = len(pixels), through(cameras, index, pixels, width)
            way = way if photograph else replace(way, camera=torch.full_like(way.camera, -1))
            seen, taken = _attempt(model, way)
            if seen is None:  # what the exception held on to is free by now
                rays, samples = count // 2, samples // 2
                torch.cuda.empty_cache()
                continue
            done += count
            rays = int(min(max(count * samples / max(taken, 1), count / 4, LEAST_CHUNK), 4 * count, 1 << 18))
            yield Tile.of(pixels, part.step, seen)


def _attempt(model: Model | Surface, rays: Rays) -> tuple[Seen | None, int]:
    """What rays see and how many samples that took; None where memory does not suffice and fewer rays may fit."""
    try:
        seen = model(rays)
    except torch.OutOfMemoryError:
        if len(rays) <= LEAST_CHUNK:
            raise
        return None, 0
    found = Seen(color=seen.color, depth=seen.depth, normal=seen.normal, opacity=seen.opacity)
    return found, sum(part.tau.numel() for part in seen.media)


def averaged(seen: Sequence[Seen]) -> Seen:
    """What pixels [R] see of several rays each: the mean; of depth and normal, that of the rays that meet something."""
    if len(seen) == 1:
        return seen[0]
    opacity = torch.stack([each.opacity for each in seen])
    share = opacity / opacity.sum(0).clamp_min(1e-9)

    def mean(parts: Sequence[Tensor | None], weight: Tensor) -> Tensor | None:
        known = [part for part in parts if part is not None]
        return (weight[..., None] * torch.stack(known)).sum(0) if known else None

    return Seen(
        depth=(share * torch.stack([each.depth for each in seen])).sum(0),
        opacity=opacity.mean(0),
        color=mean([each.color for each in seen], torch.full_like(share, 1 / len(seen))),
        normal=mean([each.normal for each in seen], share),
    )


@torch.no_grad()
def tiles_of(
    look: Callable[[Rays], Seen],
    cameras: Cameras,
    index: int,
    *,
    coarse: int = 1,
    places: tuple[tuple[float, float], ...] = CENTER,
) -> Iterator[Tile]:
    """The image of camera `index` by a function of rays, in tiles of constant size; coarse as of `tiles`.

    cameras: in the frame and on the device that the function expects. places: where in a pixel its rays go through,
    from (0, 0) to (1, 1); what they see is averaged. On a CPU as many threads call it at once as torch
    may use, and are ahead of the consumer by a few tiles: whoever stops iterating waits for those that have begun.
    """
    (width, height), device = size_of(cameras, index), cameras.size.device
    chunk = CHUNK[device.type]

    @torch.no_grad()
    def tile(part: Pass, start: int) -> Tile:
        pixels = part.pixels(start, start + chunk, device)
        seen = [look(through(cameras, index, pixels, width, place)) for place in places]
        return Tile.of(pixels, part.step, averaged(seen))

    jobs = ((part, start) for part in passes(width, height, coarse) for start in range(0, len(part), chunk))
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        yield from (tile(*job) for job in jobs)
    else:
        yield from _ahead(tile, jobs, threads)


def _ahead(tile: Callable[[Pass, int], Tile], jobs: Iterable[tuple[Pass, int]], threads: int) -> Iterator[Tile]:
    """The tiles of all jobs in their order, made by several threads."""
    waiting: deque[Future[Tile]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for job in jobs:
            waiting.append(pool.submit(tile, *job))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def frame_of(stream: Iterable[Tile], width: int, height: int) -> Frame:
    """The whole image of a stream of tiles."""
    flat = {name: torch.zeros(height * width) for name in ("depth", "opacity")}
    for tile in stream:
        for name in ("depth", "opacity", "color", "normal"):
            values = getattr(tile, name)
            if values is not None:
                if name not in flat:
                    flat[name] = torch.zeros(height * width, 3)
                flat[name][tile.pixels] = values
    image = {name: values.view(height, width, *values.shape[1:]) for name, values in flat.items()}
    nothing = torch.zeros(()).expand(height, width, 3)
    return Frame(image.get("color", nothing), image["depth"], image.get("normal", nothing), image["opacity"])


def render_image(
    model: Model | Surface, cameras: Cameras, index: int, *, samples: int | None = None, photograph: bool = False
) -> Frame:
    """The image of camera `index`; see `tiles`."""
    stream = tiles(model, cameras, index, samples=samples, photograph=photograph)
    return frame_of(stream, *size_of(cameras, index))
