"""Sets from the air: OpenDroneMap, Metashape, and positions in photographs; each against cameras that are known."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dataio.cameras import Cameras
from dataio.formats.colmap import ColmapData
from dataio.formats.metashape import MetashapeData
from dataio.formats.opendronemap import OpenDroneMapData
from dataio.formats.transforms import TransformsData
from dataio.georeference import Georeference, camera_turn, ecef, utm_of
from dataio.pictures.exif import GPS
from dataio.placement import moved, placed
from dataio.recognition import AutoData
from dataio.scene import DataConfig, assemble
from dataio.views import Views, checked
from engine.saved import scene_state
from tests.conftest import shared_data
from tests.support.made_data import HEIGHT, WIDTH, picture, ring_poses
from utils.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from utils.errors import InputError

COUNT, SIDE = 8, max(WIDTH, HEIGHT)
ORIGIN = Georeference(47.25, 8.5, 480.0)
POINTS = np.array([[0.0, 0.0, 0.0], [0.3, -0.2, 0.4], [-0.5, 0.1, -0.2]])
LENS = {"k1": 0.05, "k2": -0.01, "k3": 0.002, "p1": 0.003, "p2": -0.004}
FOCAL, MIDDLE = (30.0, 31.0), (12.5, 7.75)


def known() -> Cameras:
    """The cameras that all files of this page describe: Brown's lens, principal point off the middle."""
    bend = [LENS["k1"], LENS["k2"], LENS["p1"], LENS["p2"], LENS["k3"], 0, 0, 0]
    return Cameras.make(ring_poses(COUNT), [*FOCAL, *MIDDLE], [WIDTH, HEIGHT], distortion=np.tile(bend, (COUNT, 1)))


def agrees(views: Views, to_known: np.ndarray | None = None) -> None:
    """Known points project to the known pixels. to_known: 4x4 from the views' world."""
    import torch

    cameras = checked(views).cameras(np.eye(4) if to_known is None else to_known)
    for view in range(COUNT):
        ours, truth = (c.project(torch.from_numpy(POINTS).float(), view)[0] for c in (cameras, known()))
        np.testing.assert_allclose(ours, truth, atol=2e-3)


def pictures(folder: Path) -> Path:
    for view in range(COUNT):
        picture(folder / f"images/{view:03d}.png", view)
    return folder


# --- OpenDroneMap ------------------------------------------------------------------------------------------


CAMERA = {
    "projection_type": "brown", "width": WIDTH, "height": HEIGHT, "focal_x": FOCAL[0] / SIDE,
    "focal_y": FOCAL[1] / SIDE,
    "c_x": (MIDDLE[0] - WIDTH / 2) / SIDE, "c_y": (MIDDLE[1] - HEIGHT / 2) / SIDE, **LENS,
}  # fmt: skip


def shots() -> dict[str, dict]:
    result = {}
    for view, pose in enumerate(np.linalg.inv(ring_poses(COUNT))):
        turn = Rotation.from_matrix(pose[:3, :3]).as_rotvec().tolist()
        result[f"{view:03d}.png"] = {"rotation": turn, "translation": pose[:3, 3].tolist(), "camera": "c"}
    return result


def opensfm(folder: Path, **changes) -> Path:
    pictures(folder)
    part = {
        "cameras": {"c": CAMERA}, "shots": shots(), "points": {"1": {"coordinates": [0, 0, 1], "color": [1, 2, 3]}},
        "reference_lla": {"latitude": ORIGIN.latitude, "longitude": ORIGIN.longitude, "altitude": ORIGIN.altitude},
    }  # fmt: skip
    content = [{"cameras": {}, "shots": {}}, {**part, **changes}]
    (folder / "opensfm").mkdir()
    (folder / "opensfm/reconstruction.json").write_text(json.dumps(content))
    return folder


def test_opensfm_cameras(tmp_path: Path):
    config = AutoData(path=str(opensfm(tmp_path))).resolve()
    assert isinstance(config, OpenDroneMapData)
    views = config.parse()
    agrees(views)
    assert views.georeference == ORIGIN
    scene = config.load()
    assert scene.georeference == ORIGIN and scene.up.tolist() == [0, 0, 1]


def test_shots_in_a_utm_grid_come_back_to_true_north(tmp_path: Path):
    """The grid's axes are turned by the convergence and shrunk; both are undone."""
    origin = Georeference(47.25, 10.4, 480.0)  # 1.4 degrees from its zone's middle: a turn of one degree
    grid = utm_of(origin.latitude, origin.longitude)
    turn = Rotation.from_euler("z", grid.convergence, degrees=True).as_matrix()
    features = []
    for view, pose in enumerate(ring_poses(COUNT)):
        place = origin.geodetic(1000 * pose[None, :3, 3])[0]
        there = utm_of(place[0], place[1])
        vector = Rotation.from_matrix((turn @ pose[:3, :3]).T).as_rotvec().tolist()
        properties = {"filename": f"{view:03d}.png", "focal": FOCAL[0] / SIDE, "width": WIDTH, "height": HEIGHT,
                      "translation": [there.easting, there.northing, place[2]], "rotation": vector}  # fmt: skip
        features.append({"properties": properties, "geometry": {"coordinates": [place[1], place[0], place[2]]}})
    pictures(tmp_path)
    (tmp_path / "shots.geojson").write_text(json.dumps({"features": features}))
    (tmp_path / "cameras.json").write_text(json.dumps({"c": CAMERA}))
    views = OpenDroneMapData(path=str(tmp_path)).parse()
    assert views.georeference is not None
    shift = origin.enu(np.array([[views.georeference.latitude, views.georeference.longitude,
                                  views.georeference.altitude]]))[0]  # fmt: skip
    to_known = np.diag([1e-3, 1e-3, 1e-3, 1.0])
    to_known[:3, 3] = shift / 1000
    agrees(views, to_known)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"shots": {}, "cameras": {}}, "photographs"),
        ({"cameras": {}}, "not in `cameras`"),
        ({"cameras": {"c": {**CAMERA, "projection_type": "dual"}}}, "projection_type"),
        ({"cameras": {"c": {**CAMERA, "width": 2**40}}}, "width"),
        ({"cameras": {"c": {"width": WIDTH, "height": HEIGHT}}}, "focal"),
        ({"shots": {"../../a.png": shots()["000.png"]}}, "leads out"),
        ({"shots": {n: {**s, "rotation": [1e300, 0, 0]} for n, s in shots().items()}}, "NaN"),
        ({"reference_lla": {"latitude": 200, "longitude": 0}}, "latitude"),
        ({"shots": [1, 2]}, "shots"),
    ],
)
def test_opensfm_files_that_are_wrong(changes: dict, word: str, tmp_path: Path):
    with pytest.raises(InputError, match=word):
        checked(OpenDroneMapData(path=str(opensfm(tmp_path, **changes))).parse())


# --- Metashape ---------------------------------------------------------------------------------------------


def metashape(folder: Path, *, placed_on_earth: bool = True, text: str | None = None, head: str = "") -> Path:
    pictures(folder)
    scale, turn = 0.5, Rotation.random(random_state=0).as_matrix()  # chunk from world
    cameras = ""
    for view, pose in enumerate(ring_poses(COUNT)):
        chunk = np.eye(4)
        chunk[:3, :3], chunk[:3, 3] = turn @ pose[:3, :3], scale * turn @ pose[:3, 3]
        numbers = " ".join(map(repr, chunk.ravel().tolist()))
        cameras += f'<camera id="{view}" sensor_id="0" label="{view:03d}"><transform>{numbers}</transform></camera>'
    earth = ORIGIN.enu_from_ecef()
    back = earth[:3, :3].T @ turn.T
    center = ecef(np.array([[ORIGIN.latitude, ORIGIN.longitude, ORIGIN.altitude]]))[0]
    where = (
        f"<transform><rotation>{' '.join(map(repr, back.ravel().tolist()))}</rotation>"
        f"<translation>{' '.join(map(repr, center.tolist()))}</translation><scale>{1 / scale}</scale></transform>"
    )
    lens = (
        f"<f>{FOCAL[1]}</f><b1>{FOCAL[0] - FOCAL[1]}</b1><cx>{MIDDLE[0] - WIDTH / 2}</cx>"
        f"<cy>{MIDDLE[1] - HEIGHT / 2}</cy>"
        f"<k1>{LENS['k1']}</k1><k2>{LENS['k2']}</k2><k3>{LENS['k3']}</k3><p1>{LENS['p2']}</p1><p2>{LENS['p1']}</p2>"
    )
    content = text or (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<document version="2.0.0"><chunk><sensors>'
        f'<sensor id="0" type="frame"><resolution width="{WIDTH}" height="{HEIGHT}"/><calibration class="adjusted">'
        f"{lens}</calibration></sensor></sensors>"
        f"<cameras>{cameras}<camera id='99' sensor_id='0' label='lost'/></cameras>"
        f"{where if placed_on_earth else ''}</chunk></document>"
    )
    (folder / "cameras.xml").write_text(content)
    return folder


def test_metashape_cameras_on_earth(tmp_path: Path):
    views = AutoData(path=str(metashape(tmp_path))).parse()
    assert views.georeference is not None and len(views.names) == COUNT
    place = np.array([[views.georeference.latitude, views.georeference.longitude, views.georeference.altitude]])
    to_known = np.eye(4)
    to_known[:3, 3] = ORIGIN.enu(place)[0]
    agrees(views, to_known)


def test_metashape_without_a_place(tmp_path: Path):
    views = MetashapeData(path=str(metashape(tmp_path, placed_on_earth=False))).parse()
    assert views.georeference is None
    spread = np.ptp(views.camera_to_world[:, :3, 3], axis=0)
    assert np.linalg.norm(spread) < np.linalg.norm(np.ptp(ring_poses(COUNT)[:, :3, 3], axis=0))  # the chunk's units


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB + "<document>&c;</document>", "document type"),
        ("<document><chunk>", "broken XML"),
        ("", "broken XML"),
        ("<svg/>", "Metashape"),
        ("<document/>", "Metashape"),
        ("<document><chunk/></document>", "aligned cameras"),
        ("<chunk><cameras><camera label='000'><transform>1 2</transform></camera></cameras></chunk>",
         "finite numbers"),
        ("<chunk><cameras><camera label='../../etc/passwd'><transform/></camera></cameras></chunk>",
         "leads out"),
        ("<chunk><cameras><camera label='000'><transform>" + "1e9 " * 16 + "</transform></camera></cameras></chunk>",
         "sensor_id"),
        ("<a>" * 100_000, "broken XML"),
    ],
)  # fmt: skip
def test_metashape_files_that_are_wrong(text: str, word: str, tmp_path: Path):
    metashape(tmp_path)
    (tmp_path / "cameras.xml").write_text(text)
    with pytest.raises(InputError, match=word):
        checked(MetashapeData(path=str(tmp_path)).parse())


def test_metashape_files_are_read_in_pieces(tmp_path: Path):
    """Of 24 MB of other elements nothing is kept, and there is an end to their number."""
    file = metashape(tmp_path) / "cameras.xml"
    text, known = file.read_text(), MetashapeData(path=str(tmp_path)).parse()
    other = "<tie>" + "1 2 3 " * 4_000_000 + "</tie>"
    file.write_text(text.replace("<cameras>", f"{other}<cameras>"))
    tracemalloc.start()
    found = MetashapeData(path=str(tmp_path)).parse()
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()
    assert found.names == known.names and np.array_equal(found.camera_to_world, known.camera_to_world)
    file.write_text(text.replace("<cameras>", "<x/>" * 1_000_000 + "<cameras>"))
    with pytest.raises(InputError, match="more than 1000000 elements"):
        MetashapeData(path=str(tmp_path)).parse()


@pytest.mark.parametrize(
    "change",
    [("resolution width=", "resolution width='9999999999' w="), ("<f>", "<f>nan "), ('type="frame"', 'type="rpc"'),
     ("<scale>", "<scale>-"), ("<rotation>", "<rotation>x "), ("<f>", "<g>")],
)  # fmt: skip
def test_metashape_numbers_that_are_wrong(change: tuple[str, str], tmp_path: Path):
    file = metashape(tmp_path) / "cameras.xml"
    file.write_text(file.read_text().replace(*change).replace("<g>31.0</f>", "<g>31.0</g>"))
    with pytest.raises(InputError):
        checked(MetashapeData(path=str(tmp_path)).parse())


# --- positions in photographs ------------------------------------------------------------------------------


def located(folder: Path, places: np.ndarray, poses: np.ndarray, xmp: bytes = b"") -> Views:
    """Views whose photographs say where they were taken, [C,3] degrees and meters."""
    folder.mkdir(exist_ok=True)
    paths = []
    for view, (latitude, longitude, altitude) in enumerate(places):
        exif = Image.Exif()
        sides = {1: "N" if latitude >= 0 else "S", 3: "E" if longitude >= 0 else "W"}
        degrees = {2: (abs(latitude), 0.0, 0.0), 4: (abs(longitude), 0.0, 0.0), 5: b"\x00", 6: altitude}
        exif.get_ifd(GPS).update({**sides, **degrees})
        paths.append(folder / f"{view}.jpg")
        Image.new("RGB", (WIDTH, HEIGHT)).save(paths[-1], exif=exif, xmp=xmp)
    size = np.tile([WIDTH, HEIGHT], (len(paths), 1))
    lens = np.tile([30.0, 30.0, WIDTH / 2, HEIGHT / 2], (len(paths), 1))
    return Views(folder, [path.name for path in paths], paths, poses, lens, size)


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_a_model_is_placed_by_its_photographs(scale: float, tmp_path: Path):
    truth = ring_poses(12, distance=100.0)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.random(random_state=1).as_matrix() * scale
    views = located(tmp_path, ORIGIN.geodetic(truth[:, :3, 3]), truth)
    found = placed(moved(views, turn, ORIGIN), move=True)
    assert found.georeference is not None
    back = ORIGIN.enu(found.georeference.geodetic(found.camera_to_world[:, :3, 3]))
    np.testing.assert_allclose(back, truth[:, :3, 3], atol=0.02)  # degrees are stored as fractions
    assert np.abs(found.camera_to_world[:, 2, 2] - truth[:, 2, 2]).max() < 1e-3
    scene = assemble(ColmapData(path=str(tmp_path)), found)
    save_checkpoint(tmp_path, 1, {"scene": scene_state(scene)}, info={})
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    state, _ = load_checkpoint(kept)
    assert Georeference(*state["scene"]["georeference"]) == found.georeference


def test_a_world_in_meters_stays_and_learns_its_origin(tmp_path: Path):
    truth = ring_poses(12, distance=100.0)
    views = located(tmp_path, ORIGIN.geodetic(truth[:, :3, 3]), truth)
    for move in (True, False):
        found = placed(views, move=move)
        assert (found.camera_to_world == truth).all() and found.georeference is not None
        origin = found.georeference
        assert np.abs(ORIGIN.enu(np.array([[origin.latitude, origin.longitude, origin.altitude]]))).max() < 0.02


def test_positions_too_coarse_for_a_small_place_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    poses = ring_poses(12)
    noise = np.random.default_rng(0).normal(size=(12, 3)) * 5
    views = located(tmp_path, ORIGIN.geodetic(poses[:, :3, 3] + noise), poses)
    assert placed(views, move=True) is views
    assert "not used" in capsys.readouterr().err


def test_angles_of_a_gimbal():
    """Straight down with the upper side to the north; level to the east; rolled to the right."""
    np.testing.assert_allclose(camera_turn(0, -90, 0), np.diag([1.0, -1, -1]), atol=1e-12)
    np.testing.assert_allclose(camera_turn(90, 0, 0), [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    np.testing.assert_allclose(camera_turn(0, 0, 90)[:, 0], [0, 0, -1], atol=1e-12)
    for angles in ((30, -70, 5), (-120, 10, -8)):
        turn = camera_turn(*angles)
        np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) > 0


def test_one_straight_flight_is_placed_by_its_gimbal(tmp_path: Path):
    truth = np.tile(np.eye(4), (8, 1, 1))
    truth[:, :3, :3] = camera_turn(30, -70, 0)
    truth[:, :3, 3] = np.linspace(0, 1, 8)[:, None] * [100.0, 60.0, 0.0]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.random(random_state=1).as_matrix() * 0.1
    xmp = "".join(f'drone-dji:Gimbal{n}Degree="{v}" ' for n, v in (("Yaw", 30), ("Pitch", -70), ("Roll", 0)))
    places = ORIGIN.geodetic(truth[:, :3, 3])
    assert placed(moved(located(tmp_path / "a", places, truth), turn, ORIGIN), move=True).georeference is ORIGIN
    found = placed(moved(located(tmp_path / "b", places, truth, xmp.encode()), turn, ORIGIN), move=True)
    assert found.georeference is not None and found.georeference != ORIGIN
    back = ORIGIN.enu(found.georeference.geodetic(found.camera_to_world[:, :3, 3]))
    np.testing.assert_allclose(back, truth[:, :3, 3], atol=0.05)
    np.testing.assert_allclose(found.camera_to_world[:, :3, :3], truth[:, :3, :3], atol=1e-3)


@pytest.mark.parametrize("config", [ColmapData, TransformsData])
def test_the_terrain_knows_its_origin(config: type[DataConfig]):
    views = config(path=str(shared_data("synthetic/terrain")))
    scene = views.load()
    assert scene.georeference is not None
    place = scene.georeference
    assert np.abs(ORIGIN.enu(np.array([[place.latitude, place.longitude, place.altitude]]))).max() < 1e-3
    assert scene.up.tolist() == [0, 0, 1]
