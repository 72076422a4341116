"""Pictures that refine, are given up and follow the newest camera; a sphere whose picture is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from engine.viewer.painter import Canvas, Painter, Request, camera_of, coarse_for, refined
from models.rendering.frames import Frame, Tile, passes
from models.rendering.renderers.base import Renderer


class Counting(Renderer):
    """The number of each pixel as its depth; it waits where it is asked to, and counts the tiles."""

    def __init__(self, wait: Callable[[int], None] = lambda count: None, chunk: int = 64) -> None:
        self.wait, self.chunk, self.made = wait, chunk, 0

    def tiles(self, cameras: Cameras, index: int, *, coarse: int = 1) -> Iterator[Tile]:
        width, height = (int(x) for x in cameras.size[index])
        for part in passes(width, height, coarse):
            for start in range(0, len(part), self.chunk):
                self.made += 1
                self.wait(self.made)
                pixels = part.pixels(start, start + self.chunk, torch.device("cpu"))
                yield Tile(pixels=pixels, step=part.step, depth=pixels.float(), opacity=torch.ones(len(pixels)))


def camera(width: int = 20, height: int = 12) -> Cameras:
    return camera_of(np.eye(4)[:3], 1.0, width, height, torch.device("cpu"))


def test_pictures_refine_to_the_whole() -> None:
    """Each picture holds every so manyth pixel of the true one, and the last one all of them."""
    truth = torch.arange(20.0 * 12).view(12, 20)
    found = [item for item in refined(Counting(), camera(), 8) if item is not None]
    assert [step for _, step in found] == [8, 4, 2, 1]
    for frame, step in found:
        assert torch.equal(frame.depth, truth[::step, ::step])


def test_a_pixel_stands_for_its_square_until_a_finer_tile_comes() -> None:
    canvas = Canvas(5, 3)
    one = torch.ones(2)
    canvas.put(Tile(pixels=torch.tensor([0, 4]), step=4, depth=torch.tensor([1.0, 2.0]), opacity=one))
    canvas.put(Tile(pixels=torch.tensor([2, 12]), step=2, depth=torch.tensor([3.0, 4.0]), opacity=one))
    expected = [[1, 1, 3, 3, 2], [1, 1, 3, 3, 2], [1, 1, 4, 4, 2]]
    assert canvas.frame(1).depth.tolist() == expected and canvas.frame(2).depth.tolist() == [[1, 3, 2], [1, 4, 2]]


@pytest.mark.parametrize("width, height, coarse", [(7, 5, 8), (16, 9, 4), (1, 1, 2), (33, 20, 16)])
def test_half_a_pass_shows_the_pass_before_in_the_rest(width: int, height: int, coarse: int) -> None:
    """Of each pass but the first half of the pixels: all others have the value of the last square around them."""
    canvas, expected = Canvas(width, height), np.zeros((height, width))
    for number, part in enumerate(passes(width, height, coarse)):
        pixels = part.pixels(0, len(part) if number == 0 else len(part) // 2, torch.device("cpu"))
        values = pixels.float() + 1000 * number
        canvas.put(Tile(pixels=pixels, step=part.step, depth=values, opacity=torch.ones(len(pixels))))
        for pixel, value in zip(pixels.tolist(), values.tolist(), strict=True):
            y, x = divmod(pixel, width)
            expected[y : y + part.step, x : x + part.step] = value
        found = canvas.frame(part.step).depth.numpy()
        assert np.array_equal(found, expected[:: part.step, :: part.step])


def test_a_coarse_picture_costs_what_its_pixels_cost() -> None:
    """A thirtieth of the rays in a fifth of the time at the most, where filling every square took the same time."""
    half = torch.arange(512)
    tile = Tile(pixels=half * 32, step=32, depth=half.float(), opacity=torch.ones(512))
    canvas, begun = Canvas(512 * 32, 32), time.process_time()
    canvas.put(tile)
    canvas.frame(32)
    coarse = time.process_time() - begun
    begun = time.process_time()
    canvas.frame(1)
    assert coarse < (time.process_time() - begun) / 5


@pytest.mark.parametrize("pixels, rate, expected", [(1000, 1e4, 1), (1001, 1e4, 2), (64_000, 1e4, 8), (10**9, 1.0, 32)])
def test_the_first_picture_takes_a_tenth_of_a_second(pixels: int, rate: float, expected: int) -> None:
    assert coarse_for(pixels, rate) == expected


def test_a_camera_has_the_asked_field_of_view() -> None:
    """The middle of the upper edge is half the vertical field of view above the axis."""
    found = camera_of(np.eye(4)[:3], 0.6, 200, 100, torch.device("cpu"))
    ray = found.rays(torch.zeros(1, dtype=torch.long), torch.tensor([[100.0, 0.0]])).directions[0]
    assert float(torch.atan2(-ray[1], ray[2])) == pytest.approx(0.3, abs=1e-6)


def waited(event: threading.Event) -> None:
    event.wait(20)


class Mailbox:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.done = threading.Event()

    def __call__(self, frame: Frame, step: int) -> None:
        self.steps.append(step)
        if step == 1:
            self.done.set()


def settled(painter: Painter) -> None:
    end = time.monotonic() + 20
    while not painter.idle and time.monotonic() < end:
        time.sleep(0.005)
    assert painter.idle


def test_a_move_gives_up_the_picture_before_but_shows_its_first() -> None:
    """The renderer stops in its second pass until a second camera is asked for."""
    painter, moved = Painter(), threading.Event()
    painter.rate = 300.0
    first, second = Mailbox(), Mailbox()
    slow = Counting(lambda count: None if count < 3 else waited(moved), chunk=8)
    painter.ask(1, Request(slow, camera(), first))
    while not first.steps:
        time.sleep(0.005)
    painter.ask(1, Request(Counting(), camera(), second))
    moved.set()
    assert second.done.wait(20)
    settled(painter)
    assert first.steps[0] > 1 and 1 not in first.steps and slow.made < 30, "most of its tiles were never made"


def test_while_a_camera_moves_each_picture_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred moves faster than pictures: some first ones come, and the last one whole."""
    painter, boxes = Painter(), [Mailbox() for _ in range(100)]
    renderer = Counting(lambda count: time.sleep(0.0005))
    for box in boxes:
        painter.ask(1, Request(renderer, camera(), box))
        time.sleep(0.0005)
    assert boxes[-1].done.wait(20)
    settled(painter)
    assert sum(bool(box.steps) for box in boxes) < 100


def test_clients_take_turns_and_who_has_gone_gets_nothing() -> None:
    painter, go = Painter(), threading.Event()
    one, two = Mailbox(), Mailbox()
    painter.ask(1, Request(Counting(lambda count: waited(go)), camera(), one))
    painter.ask(2, Request(Counting(), camera(), two))
    painter.forget(1)
    go.set()
    assert two.done.wait(20)
    settled(painter)
    assert not one.done.is_set()


def test_a_renderer_that_fails_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    painter, after = Painter(), Mailbox()

    def fail(count: int) -> None:
        raise RuntimeError("no\x1b[31m memory\nat all")

    for _ in range(3):
        painter.ask(1, Request(Counting(fail), camera(), Mailbox()))
        settled(painter)
    painter.ask(1, Request(Counting(), camera(), after))
    assert after.done.wait(20)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "RuntimeError: no" in said and "\x1b" not in said
