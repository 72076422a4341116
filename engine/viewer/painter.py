"""Pictures for those who look: coarse at once, finer while the camera rests, given up when it moves."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dataio.cameras import Cameras
from models.rendering.frames import Frame, Tile, passes, size_of
from models.rendering.renderers.base import Renderer
from utils.errors import printable

COARSEST = 32
PATIENCE = 0.1  # seconds until the first picture after a move
NEWS = 0.7  # seconds between pictures of one pass
RATE = 5e4  # rays per second, before any were counted


@dataclass(frozen=True)
class Request:
    """A picture that somebody waits for: one camera, scene frame, on the renderer's device; deliver: takes it."""

    renderer: Renderer
    camera: Cameras
    deliver: Callable[[Frame, int], None]  # every so manyth pixel of the picture


class Canvas:
    """The tiles of a picture, as far as they have come; passes from coarse to fine."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.step = width, 0  # every so manyth pixel has a value, 0: none has
        self.parts = {name: torch.zeros(height, width, *shape) for name, shape in _PARTS.items()}

    def put(self, tile: Tile) -> None:
        """Take a tile; until a finer one comes, a pixel stands for its square."""
        self._fill(tile.step)
        at = tile.pixels // self.width, tile.pixels % self.width
        for name, part in self.parts.items():
            value: Tensor | None = getattr(tile, name)
            if value is not None:
                part[at] = value

    def frame(self, step: int) -> Frame:
        """Every `step`th pixel in both axes."""
        self._fill(step)
        return Frame(**{name: part[::step, ::step].clone() for name, part in self.parts.items()})

    def _fill(self, step: int) -> None:
        """Give every `step`th pixel the value of the square that it is in; only pixels that a pass asks for cost."""
        coarse = self.step or step
        for part in self.parts.values() if coarse > step else ():
            filled = part[::coarse, ::coarse].repeat_interleave(coarse // step, 0).repeat_interleave(coarse // step, 1)
            fine = part[::step, ::step]
            fine.copy_(filled[: fine.shape[0], : fine.shape[1]])
        self.step = min(coarse, step)


_PARTS: dict[str, tuple[int, ...]] = {"color": (3,), "depth": (), "normal": (3,), "opacity": ()}


def refined(renderer: Renderer, camera: Cameras, coarse: int) -> Iterator[tuple[Frame, int] | None]:
    """Pictures of a camera, each with its step, from coarse to fine; None after tiles between them.

    Whoever stops iterating stops the work.
    """
    size = size_of(camera, 0)
    canvas, shown = Canvas(*size), time.monotonic()
    left = {part.step: len(part) for part in passes(*size, coarse)}  # pixels of each pass that are yet to come
    for tile in renderer.tiles(camera, 0, coarse=coarse):
        canvas.put(tile)
        left[tile.step] -= len(tile.pixels)
        late = tile.step < coarse and time.monotonic() - shown > NEWS
        if left[tile.step] == 0 or late:
            shown = time.monotonic()
            yield canvas.frame(tile.step), tile.step
        else:
            yield None


@dataclass
class _Work:
    """A picture in the making. delivered: how many of it; rays: of its first."""

    request: Request
    coarse: int
    steps: Iterator[tuple[Frame, int] | None]
    delivered: int = 0
    begun: float = field(default_factory=time.monotonic)


class Painter:
    """One thread that renders for all, a tile of each in turn; of each client the newest request counts."""

    def __init__(self) -> None:
        self.rate = RATE
        self._asked: dict[int, Request] = {}
        self._works: dict[int, _Work] = {}
        self._gone: set[int] = set()
        self._change = threading.Condition()
        self._said: set[str] = set()
        threading.Thread(target=self._run, daemon=True, name="painter").start()

    def ask(self, client: int, request: Request) -> None:
        """Render this for a client, instead of what it has asked for before."""
        with self._change:
            self._gone.discard(client)
            self._asked[client] = request
            self._change.notify()

    def forget(self, client: int) -> None:
        """A client has gone, or wants no picture."""
        with self._change:
            self._asked.pop(client, None)
            self._gone.add(client)
            self._change.notify()

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for."""
        return not self._asked and not self._works

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._asked or self._works or self._gone)
                self._take_up()
            for client, work in list(self._works.items()):
                self._advance(client, work)

    def _take_up(self) -> None:
        """Begin what was asked for; what is in the making goes on until its first picture, so that a move shows."""
        for client in self._gone:
            self._works.pop(client, None)
        self._gone.clear()
        for client, request in list(self._asked.items()):
            work = self._works.get(client)
            if work is None or work.delivered:
                del self._asked[client]
                coarse = coarse_for(int(request.camera.size[0].prod()), self.rate)
                self._works[client] = _Work(request, coarse, refined(request.renderer, request.camera, coarse))

    def _advance(self, client: int, work: _Work) -> None:
        try:
            found = next(work.steps)
            if found is not None:
                work.request.deliver(*found)
                self._measure(work)
                work.delivered += 1
        except StopIteration:
            self._works.pop(client, None)
        except Exception as error:  # of a renderer, or of a client that has gone: the others are rendered on
            self._works.pop(client, None)
            self._say(f"{type(error).__name__}: {error}")

    def _measure(self, work: _Work) -> None:
        """Follow how many rays a second brings, by first pictures."""
        if work.delivered == 0 and len(self._works) == 1:
            rays = int(work.request.camera.size[0].prod()) / work.coarse**2
            self.rate += 0.3 * (rays / max(time.monotonic() - work.begun, 1e-4) - self.rate)

    def _say(self, words: str) -> None:
        line = printable(words.splitlines()[0])
        if line not in self._said:
            self._said.add(line)
            print(f"warning: not rendered: {line}", file=sys.stderr)


def coarse_for(pixels: int, rate: float) -> int:
    """The step, a power of two, with which so many pixels take at most `PATIENCE` at a rate of rays per second."""
    step = 1
    while pixels / step**2 > rate * PATIENCE and step < COARSEST:
        step *= 2
    return step


def camera_of(pose: np.ndarray, fov: float, width: int, height: int, device: torch.device) -> Cameras:
    """One camera. pose: [3, 4], scene frame, OpenCV axes. fov: vertical, radians; size in pixels."""
    focal = 0.5 * height / np.tan(0.5 * fov)
    intrinsics = [focal, focal, width / 2, height / 2]
    return Cameras.make(pose[None], intrinsics, [width, height], near=0.0).to(device)
