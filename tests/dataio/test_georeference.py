"""Places on Earth against published values and exact identities; alignment against known similarities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dataio.alignment import fit_robustly, fit_similarity
from dataio.georeference import E2, A, Georeference, ecef, geodetic, middle_of, utm_of
from dataio.normalize import similarity
from dataio.pictures.exif import Exif, Position
from dataio.sfm.structure_from_motion import choose_pairs


def test_ecef_at_places_that_need_no_formula():
    polar = A * math.sqrt(1 - E2)
    places = np.array([[0.0, 0.0, 0.0], [0.0, 90.0, 100.0], [90.0, 0.0, -5.0], [-90.0, 12.0, 0.0]])
    expected = np.array([[A, 0, 0], [0, A + 100, 0], [0, 0, polar - 5], [0, 0, -polar]])
    np.testing.assert_allclose(ecef(places), expected, atol=1e-6)


def test_a_published_example():
    """National Geospatial-Intelligence Agency's WGS-84 constants; the place is EPSG guidance note 7-2, 4.1.1."""
    place = np.array([[53 + 48 / 60 + 33.820 / 3600, 2 + 7 / 60 + 46.380 / 3600, 73.0]])
    np.testing.assert_allclose(ecef(place), [[3771793.968, 140253.342, 5124304.349]], atol=2e-3)


@given(st.floats(-90, 90), st.floats(-179.99, 179.99), st.floats(-5000, 20_000))
def test_geodetic_undoes_ecef(latitude: float, longitude: float, altitude: float):
    place = np.array([[latitude, longitude, altitude]])
    again = geodetic(ecef(place))
    np.testing.assert_allclose(ecef(again), ecef(place), atol=1e-6)
    assert abs(again[0, 0] - latitude) < 1e-9 and abs(again[0, 2] - altitude) < 1e-6


def test_a_published_topocentric_example():
    """EPSG guidance note 7-2, section 4.1.2."""
    origin = Georeference(55.0, 5.0, 200.0)
    place = np.array([[53 + 48 / 60 + 33.82 / 3600, 2 + 7 / 60 + 46.38 / 3600, 73.0]])
    np.testing.assert_allclose(origin.enu(place), [[-189013.869, -128642.040, -4220.171]], atol=2e-3)
    np.testing.assert_allclose(origin.geodetic(origin.enu(place)), place, atol=1e-9)


@pytest.mark.parametrize(
    ("place", "zone", "easting", "northing"),
    [
        ((43.642567, -79.387139), 17, 630084.0, 4833439.0),  # the CN Tower, as Wikipedia has it
        ((0.0, 3.0), 31, 500000.0, 0.0),
        ((0.0, 0.0), 31, 166021.443, 0.0),
        ((84.0, 0.0), 31, 465005.345, 9329005.183),  # the grid's northern corner
        ((-33.8688, 151.2093), 56, 334368.6, 6250948.3),  # Sydney
    ],
)
def test_utm(place: tuple[float, float], zone: int, easting: float, northing: float):
    found = utm_of(*place)
    assert (found.zone, found.north) == (zone, place[0] >= 0)
    assert abs(found.easting - easting) < 1.0 and abs(found.northing - northing) < 1.0
    assert found.epsg == (32600 if place[0] >= 0 else 32700) + zone


def test_convergence_is_the_turn_of_the_grid():
    for latitude, longitude in ((43.0, -79.4), (-20.0, 16.0), (60.0, 8.9)):
        here, north = utm_of(latitude, longitude), utm_of(latitude + 1e-5, longitude)
        turn = math.degrees(math.atan2(here.easting - north.easting, north.northing - here.northing))
        assert abs(here.convergence - turn) < 1e-4


CORNERS = [(47.2, 8.5), (-33.9, 151.2), (0.0, 0.0), (0.0, 180.0), (-17.0, -179.9999), (65.0, 179.9999), (90.0, 0.0),
           (-90.0, 77.0), (89.9999, -120.0), (-89.9995, 10.0)]  # fmt: skip


@pytest.mark.parametrize("corner", CORNERS, ids=str)
@pytest.mark.parametrize("stray", [False, True])
def test_the_middle_is_amid_the_places_wherever_they_are(corner: tuple[float, float], stray: bool):
    """On the date line, at the poles, on the equator; a first photograph with a place on the other side or not."""
    there = np.random.default_rng(0).uniform(-100, 100, (25, 3))
    places = Georeference(*corner, 500.0).geodetic(there)
    if stray:
        places[0] = [-corner[0], corner[1] + 180, 0.0]
    middle = middle_of(places)
    assert -180 <= middle.longitude <= 180 and abs(middle.latitude) <= 90
    found = middle.enu(places)[stray:]
    assert np.abs(found).max() < 350 and abs(np.median(found[:, 2])) < 30
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1)
    truth = np.linalg.norm(there[stray:, None] - there[None, stray:], axis=-1)
    np.testing.assert_allclose(apart, truth, atol=1e-5)


@pytest.mark.parametrize("latitude", [90.0, -90.0, 84.5, -81.0])
def test_a_sidecar_near_a_pole_names_no_grid(latitude: float):
    assert Georeference(latitude, 10.0, 0.0).described()["utm_of_origin"] is None
    assert Georeference(latitude * 0.8, 10.0, 0.0).described()["utm_of_origin"]["epsg"] in (32632, 32732)


def test_neighbors_are_near_also_on_the_date_line():
    """Photographs along a line across it, of which the first has a place on the other side of the Earth."""
    exifs = [Exif(position=Position(0.0, 0.0001, None))]
    exifs += [Exif(position=Position(-17.0, (179.99 + 1e-4 * i + 180) % 360 - 180, None)) for i in range(200)]
    pairs = choose_pairs(exifs, "gps")
    assert all((i, i + 9) in pairs for i in range(20, 180)) and not any(1 <= i < j - 25 for i, j in pairs)


def a_similarity(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    matrix = similarity(random.normal(size=3) * 100, 1.0)
    matrix[:3, :3] = random.uniform(0.1, 30) * Rotation.random(random_state=seed).as_matrix()
    return matrix


@pytest.mark.parametrize("flat", [False, True])
def test_a_similarity_is_found_again(flat: bool):
    matrix = a_similarity(1)
    points = np.random.default_rng(0).normal(size=(12, 3)) * ([1, 1, 0] if flat else [1, 1, 1])
    np.testing.assert_allclose(fit_similarity(points, points @ matrix[:3, :3].T + matrix[:3, 3]), matrix, atol=1e-9)


def test_outliers_do_not_move_a_robust_fit():
    matrix, random = a_similarity(2), np.random.default_rng(3)
    points = random.normal(size=(40, 3))
    measured = points @ matrix[:3, :3].T + matrix[:3, 3] + random.normal(size=(40, 3)) * 0.01
    measured[::4] += random.normal(size=(10, 3)) * 500
    fit = fit_robustly(points, measured)
    assert fit is not None
    assert set(np.flatnonzero(~fit.inliers)) >= set(range(0, 40, 4)) and fit.inliers.sum() >= 28
    np.testing.assert_allclose(fit.matrix[:3, :3], matrix[:3, :3], rtol=0.02, atol=0.02)
    assert fit.error < 0.03 and fit.turn < 0.01


def test_positions_on_a_line_do_not_tell_a_turn():
    line = np.linspace(0, 1, 10)[:, None] * [1.0, 2.0, 0.5]
    noise = np.random.default_rng(0).normal(size=(10, 3)) * 1e-3
    fit = fit_robustly(line, line * 50 + noise)
    assert fit is not None and fit.turn > 0.1


@pytest.mark.parametrize("points", [np.zeros((8, 3)), np.eye(3), np.zeros((0, 3))])
def test_too_little_is_no_fit(points: np.ndarray):
    assert fit_robustly(points, points) is None
