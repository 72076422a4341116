"""A frame as a stream of tiles: every pixel once, coarse ones first, and no work for who has gone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dataio.cameras import Cameras, Rays
from models.rendering.frames import Seen, Tile, frame_of, passes, render_image, size_of, tiles, tiles_of
from models.rendering.surface import Surface
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import hit_distance, sphere_model

SIZES = [(1, 1), (8, 8), (9, 17), (32, 24), (3, 40), (40, 3)]


def camera(width: int = 70, height: int = 50) -> Cameras:
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5]])[None]
    return Cameras.make(pose, [80.0, 80.0, width / 2, height / 2], [width, height])


def sphere_seen(rays: Rays) -> Seen:
    t = hit_distance(rays)
    return Seen(depth=torch.where(torch.isfinite(t), t, 0.0).float(), opacity=torch.isfinite(t).float())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coarse", [1, 2, 8])
def test_passes_hold_every_pixel_once(size: tuple[int, int], coarse: int) -> None:
    width, height = size
    seen: set[int] = set()
    for part in passes(width, height, coarse):
        half, device = len(part) // 2, torch.device("cpu")
        numbers = part.pixels(0, len(part), device)
        halves = [part.pixels(0, half, device), part.pixels(half, 9999, device)]
        assert torch.equal(torch.cat(halves), numbers) and len(numbers) == len(part)
        x, y = numbers % width, numbers // width
        assert (x % part.step == 0).all() and (y % part.step == 0).all()
        assert not seen & set(numbers.tolist())
        seen |= set(numbers.tolist())
        assert seen == {w + width * h for h in range(0, height, part.step) for w in range(0, width, part.step)}
    assert len(seen) == width * height


@pytest.mark.parametrize("coarse", [0, 3, -4])
def test_coarse_is_a_power_of_two(coarse: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        passes(8, 8, coarse)


@pytest.mark.parametrize("coarse", [1, 8])
@pytest.mark.parametrize("surface", [False, True])
def test_the_union_of_the_tiles_is_the_frame(coarse: int, surface: bool) -> None:
    model = surface_model(*CASES["logistic"])
    model.refresh(0)
    seen, cameras = Surface(model) if surface else model, camera()
    found = list(tiles(seen, cameras, 0, coarse=coarse, samples=3000))
    assert len(found) > 1
    assert torch.equal(torch.cat([tile.pixels for tile in found]).sort().values, torch.arange(70 * 50))
    grid = cameras.pixel_grid(0)
    with torch.no_grad():
        truth = seen(cameras.rays(torch.zeros(len(grid), dtype=torch.long), grid))
    for tile in found:
        assert tile.color is not None and tile.normal is not None
        torch.testing.assert_close(tile.color, truth.color[tile.pixels].clamp(0, 1))
        torch.testing.assert_close(tile.depth, truth.depth[tile.pixels])
        torch.testing.assert_close(tile.normal, truth.normal[tile.pixels])
        torch.testing.assert_close(tile.opacity, truth.opacity[tile.pixels])
    frame = frame_of(found, *size_of(cameras, 0))
    torch.testing.assert_close(frame.depth.flatten(), truth.depth)
    if coarse == 1:
        whole = render_image(seen, cameras, 0, samples=3000)
        assert all(torch.equal(getattr(whole, name), getattr(frame, name)) for name in ("color", "depth", "normal"))


def test_the_first_tiles_are_the_coarse_ones() -> None:
    found = list(tiles(sphere_model(), camera(), 0, coarse=8))
    steps = [tile.step for tile in found]
    assert steps == sorted(steps, reverse=True) and set(steps) == {8, 4, 2, 1}
    first = torch.cat([tile.pixels for tile in found if tile.step == 8])
    assert first.tolist() == [x + 70 * y for y in range(0, 50, 8) for x in range(0, 70, 8)]


def test_closing_early_evaluates_no_more_rays_and_restores_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    model, forward, asked = sphere_model().train(), None, []
    forward = model.forward

    def counted(rays: Rays) -> object:
        asked.append(len(rays))
        assert not model.training
        return forward(rays)

    monkeypatch.setattr(model, "forward", counted)
    stream = tiles(model, camera(), 0, coarse=8)
    first = next(stream)
    assert asked == [len(first.pixels)] == [9 * 7] and not model.training
    stream.close()  # type: ignore[attr-defined]
    assert model.training and asked == [63]
    for tile in tiles(model, camera(), 0):
        assert len(tile.pixels) == 1024
        break
    assert model.training and asked == [63, 1024]


@pytest.mark.parametrize("threads", [1, 2])
def test_tiles_by_a_function_of_rays(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """In order whatever the threads; those that have begun are waited for, and none is begun after."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("models.rendering.frames.CHUNK", {"cpu": 100})
    asked: list[int] = []

    def look(rays: Rays) -> Seen:
        asked.append(len(rays))
        return sphere_seen(rays)

    cameras = camera()
    found = list(tiles_of(look, cameras, 0))
    assert torch.equal(torch.cat([tile.pixels for tile in found]), torch.arange(70 * 50)) and len(asked) == 35
    rays = cameras.rays(torch.zeros(3500, dtype=torch.long), cameras.pixel_grid(0))
    frame = frame_of(found, 70, 50)
    torch.testing.assert_close(frame.depth.flatten(), sphere_seen(rays).depth)
    assert frame.color.shape == (50, 70, 3) and (frame.color == 0).all() and (frame.normal == 0).all()
    asked.clear()
    stream = tiles_of(look, cameras, 0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert 1 <= len(asked) <= (1 if threads == 1 else 2 * threads + 1)


def test_an_error_in_a_thread_reaches_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def look(rays: Rays) -> Seen:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        list(tiles_of(look, camera(), 0))


def test_a_tile_keeps_what_was_seen() -> None:
    def vector(x: float) -> Tensor:
        return torch.full((4, 3), x)

    seen = Seen(depth=torch.arange(4.0), opacity=torch.ones(4), color=vector(1.5), normal=vector(-0.5))
    tile = Tile.of(torch.arange(4), 2, seen)
    assert tile.color is not None and (tile.color == 1).all() and torch.equal(tile.depth, seen.depth)
    assert tile.normal is not None and torch.equal(tile.normal, vector(-0.5))
    bare = Tile.of(torch.arange(4), 1, Seen(depth=seen.depth, opacity=seen.opacity, normal=vector(0.1)))
    assert bare.color is None and bare.normal is not None and torch.equal(bare.normal, vector(0.1))
