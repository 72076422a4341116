"""What a photograph says of itself, and what strangers may write there."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataio.pictures.exif import DETAILS, FOCAL, FOCAL_35, GPS, MAKE, MODEL, ORIENTATION, Gimbal, Position, read_exif
from tests.conftest import shared_data

LENS = {FOCAL: 4.3, 0xA20E: 4553.734, 0xA210: 2, 0xA002: 100}
PLACE = {1: "N", 2: (47.0, 15.0, 0.0), 3: "W", 4: (8.0, 30.0, 36.0), 5: b"\x00", 6: 480.5}


def photo(path: Path, top: dict, lens: dict | None = None, gps: dict | None = None, **options) -> Path:
    exif = Image.Exif()
    exif.update(top)
    exif.get_ifd(DETAILS).update(lens or {})
    exif.get_ifd(GPS).update(gps or {})
    Image.fromarray(np.zeros((75, 100, 3), np.uint8)).save(path, exif=exif, **options)
    return path


def test_everything_that_is_read(tmp_path: Path):
    xmp = b'<x drone-dji:GimbalYawDegree="+12.50" drone-dji:GimbalPitchDegree="-89.9" drone-dji:GimbalRollDegree="0"/>'
    found = read_exif(photo(tmp_path / "a.jpg", {ORIENTATION: 6, MAKE: "DJI", MODEL: "FC"}, LENS, PLACE, xmp=xmp))
    assert (found.orientation, found.camera, found.focal_millimeters) == (6, "DJI FC", 4.3)
    assert found.focal == pytest.approx(4.3 / 25.4 * 4553.734)
    assert found.position == pytest.approx(Position(47.25, -8.51, 480.5))
    assert found.gimbal == Gimbal(12.5, -89.9, 0.0)


def test_angles_as_elements(tmp_path: Path):
    parts = "".join(f"<drone-dji:Gimbal{n}Degree>{v}</drone-dji:Gimbal{n}Degree>" for n, v in
                    (("Yaw", -10), ("Pitch", -45), ("Roll", 1)))  # fmt: skip
    assert read_exif(photo(tmp_path / "a.jpg", {}, xmp=parts.encode())).gimbal == Gimbal(-10, -45, 1)


def test_film_equivalents_follow_the_diagonal(tmp_path: Path):
    found = read_exif(photo(tmp_path / "a.jpg", {}, {FOCAL_35: 43}))
    assert found.focal == pytest.approx(43 / 43.2666 * 125, rel=1e-4)


def test_focal_lengths_of_a_smaller_copy(tmp_path: Path):
    found = read_exif(photo(tmp_path / "a.jpg", {}, {**LENS, 0xA002: 400, 0xA20E: 18215.0}))
    assert found.focal == pytest.approx(4.3 / 25.4 * 4553.75, rel=1e-3)  # a quarter of the pixels


@pytest.mark.parametrize(
    "change",
    [
        {2: (float("nan"), 0.0, 0.0)}, {2: (97.0, 0.0, 0.0)}, {4: (200.0, 0.0, 0.0)}, {2: "47 15 0"}, {2: ()},
        {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, {2: (-47.0, 0.0, 0.0)}, {2: None},
    ],
)  # fmt: skip
def test_a_place_without_sense_is_none(change: dict, tmp_path: Path):
    gps = {key: value for key, value in {**PLACE, **change}.items() if value is not None}
    try:
        path = photo(tmp_path / "a.jpg", {}, gps=gps)
    except Exception:  # Pillow does not write it: hand it over as read
        from dataio.pictures.exif import _position

        assert _position(gps) is None
        return
    assert read_exif(path).position is None


@pytest.mark.parametrize(("north", "latitude"), [("N", 47.25), ("S", -47.25), (b"S\0", -47.25), ("s", -47.25)])
@pytest.mark.parametrize(("east", "longitude"), [("E", 8.51), ("W", -8.51), (b"W", -8.51), ("West", -8.51)])
def test_every_quarter_of_the_earth(north: str | bytes, latitude: float, east: str | bytes, longitude: float):
    """As text or as bytes, which some programs write."""
    from dataio.pictures.exif import _position

    assert _position({**PLACE, 1: north, 3: east}) == pytest.approx(Position(latitude, longitude, 480.5))


@pytest.mark.parametrize("side", [None, "", "X", "E", 3])
def test_a_place_in_no_hemisphere_is_none(side: object):
    from dataio.pictures.exif import _position

    assert _position({**PLACE, 1: side}) is None


def test_below_the_sea(tmp_path: Path):
    found = read_exif(photo(tmp_path / "a.jpg", {}, gps={**PLACE, 5: b"\x01"})).position
    assert found is not None and found.altitude == -480.5


@given(st.binary(max_size=400), st.integers(0, 300))
def test_damaged_exif_is_no_accident(tmp_path_factory, noise: bytes, place: int):
    path = tmp_path_factory.getbasetemp() / "noisy.jpg"
    photo(path, {ORIENTATION: 3, MAKE: "X"}, LENS, PLACE)
    content = bytearray(path.read_bytes())
    start = content.index(b"Exif") + 6 + place
    content[start : start + len(noise)] = noise[: len(content) - start]
    path.write_bytes(content)
    try:
        found = read_exif(path)
    except Exception as error:
        assert type(error).__name__ == "InputError"  # noise may reach the picture's own header
        return
    assert found.orientation in range(1, 9)
    assert found.position is None or abs(found.position.latitude) <= 90


def test_long_and_strange_xmp_is_read_in_no_time(tmp_path: Path):
    evil = b"drone-dji:GimbalYawDegree" * 2500
    assert read_exif(photo(tmp_path / "a.jpg", {}, xmp=evil[:60_000])).gimbal is None


def test_pictures_without_exif(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    found = read_exif(tmp_path / "a.png")
    assert found.orientation == 1 and found.focal is None and found.position is None


@pytest.mark.parametrize(
    ("name", "focal"), [("drone_seneca/images/IMG_0449.jpg", 771), ("drone_caliterra/images/IMG_9389.jpg", 726),
                        ("banana/images/DSC_0423.JPG", 2507)]
)  # fmt: skip
def test_real_cameras(name: str, focal: float):
    assert read_exif(shared_data(name)).focal == pytest.approx(focal, rel=2e-3)
