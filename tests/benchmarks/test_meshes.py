"""The benchmarks of meshes: a made flight is what it says it is; pictures are compared where they count."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import mesh_colors, nadir_flight
from benchmarks.nadir_flight import Flight, Ground
from dataio.recognition import AutoData
from models.rendering.frames import Frame
from utils.errors import InputError

SMALL = {"ROWS": 4, "COLUMNS": 4, "SIZE": (64, 48), "FOCAL": 50.0, "POINTS": 600, "STRAYS": 20}


@pytest.fixture
def flight(monkeypatch: pytest.MonkeyPatch) -> Flight:
    """Over a slope of 1 in 20 to the east, red to the north of the middle and blue to the south."""
    for name, value in SMALL.items():
        monkeypatch.setattr(nadir_flight, name, value)
    height = np.tile(0.05 * np.linspace(-160, 160, 65), (65, 1))
    color = np.zeros((65, 65, 3))
    color[33:, :, 0] = color[:33, :, 2] = 1.0
    return Flight.over(Ground(height, color), 1.0)


def test_ground_has_its_heights_and_colors(flight: Flight) -> None:
    middle = np.array(nadir_flight.MIDDLE)
    places = middle + [[0.0, 50.0], [100.0, -50.0], [-40.0, -3.0]]
    np.testing.assert_allclose(flight.ground.at(places), [0.0, 5.0, -2.0], atol=1e-9)
    np.testing.assert_allclose(flight.ground.colors(places)[:2], [[1, 0, 0], [0, 0, 1]], atol=1e-9)
    mesh = flight.ground.mesh()
    assert mesh.face_normals[:, 2].min() > 0.99
    np.testing.assert_allclose(mesh.vertices[:, 2], 0.05 * (mesh.vertices[:, 0] - middle[0]), atol=1e-9)


def test_a_flight_is_read_where_it_was(flight: Flight, tmp_path: Path) -> None:
    """The model's own frame is left by the positions in the photographs; ground is where two of them show it."""
    origin = nadir_flight.write_flight(flight, tmp_path)
    scene = AutoData(path=str(tmp_path)).load()
    assert scene.georeference is not None and scene.points is not None
    to_world = scene.world_from_scene
    centers, points = (
        origin.enu(scene.georeference.geodetic(x @ to_world[:3, :3].T + to_world[:3, 3]))
        for x in (scene.cameras.centers.double().numpy(), scene.points.astype(np.float64))
    )
    np.testing.assert_allclose(centers, flight.poses[:, :3, 3], atol=1.5)
    off = np.abs(points[:, 2] - flight.ground.at(points[:, :2]))
    assert np.median(off) < 1 and 0.8 < (off < 2).mean() < 1
    north = scene.images[int(centers[:, 1].argmax())].reshape(-1, 3).mean(axis=0)
    south = scene.images[int(centers[:, 1].argmin())].reshape(-1, 3).mean(axis=0)
    assert north[0] > north[2] and south[2] > south[0]


def test_heights_are_off_by_what_the_mesh_is_off(flight: Flight, tmp_path: Path) -> None:
    origin, mesh = nadir_flight.Georeference(*nadir_flight.ORIGIN), flight.ground.mesh()
    for up in (0.0, 0.5):
        mesh.vertices[:, 2] += up
        mesh.export(tmp_path / "mesh.ply")
        score = nadir_flight.heights(flight, origin, origin, tmp_path / "mesh.ply")
        assert score["height_share"] == pytest.approx(up / 100, abs=1e-5) and score["height_covered"] == 1
    seen = nadir_flight.seen_ground(flight)
    assert seen[:, 0].min() > -80 and seen[:, 0].max() < 140
    with pytest.raises(InputError, match="where on Earth"):
        nadir_flight.heights(flight, origin, None, tmp_path / "mesh.ply")


def frame(color: float, hit: torch.Tensor) -> Frame:
    nothing = torch.zeros(20, 20, 3)
    return Frame(torch.full((20, 20, 3), color), hit.float(), nothing, hit.float())


def test_pictures_are_compared_where_they_count() -> None:
    """A mesh off by 0.1 in a mask of which it covers half; a volume off by 0.01: 20 and 40 dB."""
    mask = np.zeros((20, 20), np.uint8)
    mask[4:16, 4:16] = 255
    hit = torch.zeros(20, 20, dtype=torch.bool)
    hit[4:10] = True
    for masks, drawn in (([mask], 0.5), (None, 1.0)):
        scene: Any = SimpleNamespace(masks=masks, images=[np.full((20, 20, 3), 51, np.uint8)])
        found = mesh_colors.compare(scene, 0, frame(0.21, hit), frame(0.3, hit))
        assert found["drawn"] == drawn
        for name in ("", "_within"):
            assert found[f"volume{name}"] == pytest.approx(40, abs=1e-3)
            assert found[f"mesh{name}"] == pytest.approx(20, abs=1e-3)
        assert found["mesh_fitted"] == 100, "the photograph has one color, and so has the mesh"
    assert mesh_colors.inner(mask > 0).sum() == 8 * 8
