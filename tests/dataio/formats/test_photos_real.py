"""Real photographs from the first pixel: registered, and where they were surveyed to be. Minutes: `make nightly`."""

import re
from pathlib import Path

import numpy as np
import pytest

from dataio.alignment import fit_similarity
from dataio.formats.photos import PhotosData, Prepared, prepare
from dataio.pictures.exif import read_exif
from dataio.views import Views
from tests.conftest import shared_data

pytestmark = pytest.mark.slow


def found(name: str, folder: Path) -> tuple[Prepared, PhotosData]:
    pytest.importorskip("pycolmap")
    config = PhotosData(path=str(shared_data(f"{name}/images")), prepared=str(folder), threads=2)
    return prepare(config, folder), config


def residuals(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    fit = fit_similarity(source, target)
    return np.linalg.norm(source @ fit[:3, :3].T + fit[:3, 3] - target, axis=1)


def centers(views: Views) -> np.ndarray:
    return views.camera_to_world[:, :3, 3]


def test_the_fountain_is_where_it_was_surveyed(tmp_path: Path):
    report, config = found("fountain_p11", tmp_path)
    assert report.models == [11] and report.photographs == 11
    views = config.parse()
    truth = []
    for name in views.names:
        text = shared_data(f"fountain_p11/gt_cameras_3072x2048/{name}.camera").read_text()
        truth.append([float(number) for number in text.split()[21:24]])
    distance = residuals(centers(views), np.array(truth))
    print(f"fountain_p11: {1000 * distance.max():.1f} mm at most, {1000 * np.sqrt((distance**2).mean()):.1f} mm rms")
    assert distance.max() < 0.010


@pytest.mark.parametrize(("name", "count", "most"), [("drone_seneca", 30, 5.0), ("drone_caliterra", 40, 13.0)])
def test_drone_pictures_are_where_their_receiver_says(
    name: str, count: int, most: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report, config = found(name, tmp_path)
    assert report.models == [count] and report.photographs == count
    views = config.parse()
    said = capsys.readouterr().err
    assert views.georeference is not None and re.search(r"placed by the positions of", said)
    positions = [read_exif(path).position for path in views.images]
    places = np.array([(p.latitude, p.longitude, p.altitude) for p in positions if p is not None])
    measured = views.georeference.enu(places)
    ours = np.sqrt((np.linalg.norm(centers(views) - measured, axis=1) ** 2).mean())
    least = np.sqrt((residuals(centers(views), measured) ** 2).mean())
    print(f"{name}: {ours:.2f} m rms as placed, {least:.2f} m by least squares; {said}")
    assert ours < most
    assert views.points is not None  # the ground is below the cameras: up is up
    assert np.median(views.points[:, 2]) < np.median(centers(views)[:, 2]) - 30


def test_the_banana_falls_apart_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report, config = found("banana", tmp_path)
    assert len(report.models) == 2 and report.models[0] >= report.models[1] >= 6
    scene = config.load()
    said = capsys.readouterr().err
    print(said)
    assert "2 models that were not joined" in said and "of 16 registered" in said
    assert len(scene.names) == report.models[0]
