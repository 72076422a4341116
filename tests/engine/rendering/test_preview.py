"""The picture of a path: sparse points where the cameras have them, in their colors, hidden by what is before them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from dataio.recognition import AutoData
from engine.rendering import preview
from engine.rendering.preview import UNCOLORED, DrawnPoints, put_points, sparse_points
from models.rendering.frames import Frame
from tests.support import made_data, made_models
from tests.support.made_runs import ring_cameras

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
EYE = Cameras.make(np.eye(4)[None, :3], [50.0, 50.0, 20.0, 15.0], [40, 30], near=0.0)  # looks along +z


def drawn(places: list[list[float]], colors: list[tuple[int, int, int]], hidden: float = np.inf) -> np.ndarray:
    picture = np.full((30, 40, 3), 255, np.uint8)
    points = DrawnPoints(np.array(places), np.array(colors, np.uint8))
    put_points(picture, EYE, points, np.full((30, 40), hidden))
    return picture


def test_a_point_is_drawn_where_it_projects_to() -> None:
    """x = 0.2 at a depth of 2: 20 + 50 * 0.1 = 25; y = -0.4: 15 - 10 = 5."""
    found = drawn([[0.2, -0.4, 2.0]], [RED])
    assert np.argwhere((found == RED).all(-1)).tolist() == [[5, 25], [5, 26], [6, 25], [6, 26]]
    assert (found == WHITE).all(-1).sum() == 1200 - 4


def test_the_nearest_point_is_seen() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        places, colors = [[0.0, 0, 4], [0.0, 0, 1], [0.0, 0, 2]], [RED, GREEN, BLUE]
        found = drawn([places[i] for i in order], [colors[i] for i in order])
        assert tuple(found[15, 20]) == GREEN


def test_what_a_surface_hides_is_not_drawn() -> None:
    assert tuple(drawn([[0.0, 0, 2.0]], [RED], hidden=1.9)[15, 20]) == WHITE
    assert tuple(drawn([[0.0, 0, 2.0]], [RED], hidden=1.99)[15, 20]) == RED, "as near as points are to the truth"


def test_points_that_are_not_in_the_picture_are_left_out() -> None:
    places = [[0.0, 0, -1.0], [9.0, 0, 1.0], [-9.0, 0, 1.0], [0.0, 1e9, 1.0], [0.0, 0, 0.0]]
    assert (drawn(places, [RED] * 5) == 255).all()


def a_run(folder: Path, world_from_scene: np.ndarray) -> Any:
    return SimpleNamespace(config=SimpleNamespace(data=AutoData(path=str(folder))), world_from_scene=world_from_scene)


def test_points_are_those_of_the_data_in_the_scene_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene of half the size, moved; so many at the most, each with its own color."""
    shot = made_models.ring()
    made_models.colmap_binary(shot, tmp_path)
    world = np.diag([2.0, 2, 2, 1])
    world[:3, 3] = 1, 2, 3
    found = sparse_points(a_run(tmp_path, world))
    assert found is not None and len(found.places) == len(shot.points)
    order = np.lexsort(found.places.T)
    truth = (shot.points - [1, 2, 3]) / 2
    np.testing.assert_allclose(found.places[order], truth[np.lexsort(truth.T)], atol=1e-5)
    monkeypatch.setattr(preview, "MOST_POINTS", 7)
    few = sparse_points(a_run(tmp_path, world))
    assert few is not None and len(few.places) == 7
    for place, color in zip(few.places, few.colors, strict=True):
        number = int(np.linalg.norm(truth - place, axis=1).argmin())
        assert color.tolist() == [number % 256, 2, 3]


def test_data_without_points_or_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = made_data.transforms(tmp_path)
    made_data.write(tmp_path / "transforms.json", content)
    assert sparse_points(a_run(tmp_path, np.eye(4))) is None
    capsys.readouterr()
    assert sparse_points(a_run(tmp_path / "gone", np.eye(4))) is None
    said = capsys.readouterr().err
    assert said.startswith("note: without sparse points: ") and "gone" in said and said.count("\n") == 1


def test_both_panels_have_the_points() -> None:
    """Nothing is solid, so all of them are drawn; without any the pictures have none of their color."""

    def nothing(eye: Cameras, index: int) -> Frame:
        width, height = (int(x) for x in eye.size[0])
        flat = torch.zeros(height, width)
        return Frame(flat[..., None].expand(-1, -1, 3), flat, flat[..., None].expand(-1, -1, 3), flat)

    cameras = ring_cameras()
    source: Any = SimpleNamespace(
        world_from_scene=np.eye(4), up=np.array([0.0, 0, 1]), cameras=cameras, device=torch.device("cpu")
    )
    points = DrawnPoints(np.array([[0.0, 0, 0], [0.1, 0, 0]]), np.array([UNCOLORED] * 2, np.uint8))
    for given, count in ((points, 2 * 2 * 4), (None, 0)):
        picture = preview.preview(source, nothing, cameras, given)  # type: ignore[arg-type]
        assert (picture == UNCOLORED).all(-1).sum() == count
