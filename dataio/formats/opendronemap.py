"""OpenDroneMap and OpenSfM projects: poses from opensfm/reconstruction.json, else from odm_report/shots.geojson.

Both hold world-to-camera rotations as axis times angle, with OpenCV axes. Focal lengths and principal points are
shares of the longer side, the latter counted from the middle of the picture. OpenSfM's world is east, north, up in
meters around `reference_lla`; shots.geojson has a UTM grid, and each camera's longitude and latitude beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, RootModel

from dataio import normalize
from dataio.alignment import fit_similarity
from dataio.files import MAX_FRAMES, Float64, inside, need_folder, notice, parse_json, shown
from dataio.formats import picture_folders
from dataio.georeference import Georeference, middle_of
from dataio.lens import Lens
from dataio.scene import DataConfig
from dataio.views import Views
from utils.errors import InputError

Triple = tuple[float, float, float]
RECONSTRUCTIONS = ("opensfm/reconstruction.json", "reconstruction.json")
SHOTS = ("odm_report/shots.geojson", "shots.geojson")
PICTURES = ("images", "opensfm/images", "")
# OpenSfM's projections, and where k1 k2 k3 k4 and p1 p2 stand among a lens's coefficients.
BROWN, FISHEYE, PANORAMA = (
    ("perspective", "brown", "radial", "simple_radial"),
    ("fisheye", "fisheye_opencv"),
    (
        "spherical",
        "equirectangular",
    ),
)
PLACES = {Lens.BROWN: {"k1": 0, "k2": 1, "k3": 4, "p1": 2, "p2": 3}, Lens.FISHEYE: {"k1": 0, "k2": 1, "k3": 2, "k4": 3}}


class Camera(BaseModel):
    """A lens; the many keys that are not needed are left alone."""

    projection_type: str = "perspective"
    width: int = Field(gt=0, lt=2**31)
    height: int = Field(gt=0, lt=2**31)
    focal: float | None = None
    focal_x: float | None = None
    focal_y: float | None = None
    c_x: float = 0.0
    c_y: float = 0.0
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    p1: float = 0.0
    p2: float = 0.0


class Shot(BaseModel):
    """A photograph: x_camera = R x + t."""

    rotation: Triple
    translation: Triple
    camera: str


class Point(BaseModel):
    coordinates: Triple


class Place(BaseModel):
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    altitude: float = Field(default=0.0, ge=-1e5, le=1e5)


class Reconstruction(BaseModel):
    cameras: dict[str, Camera]
    shots: dict[str, Shot]
    points: dict[str, Point] = {}
    reference_lla: Place | None = None


class Reconstructions(RootModel[list[Reconstruction]]):
    """reconstruction.json."""


class Cameras(RootModel[dict[str, Camera]]):
    """cameras.json."""


class Properties(BaseModel):
    filename: str
    camera: str | None = None  # its key in cameras.json
    focal: float
    width: int = Field(gt=0, lt=2**31)
    height: int = Field(gt=0, lt=2**31)
    translation: Triple  # of the camera, in the grid
    rotation: Triple


class Geometry(BaseModel):
    coordinates: tuple[float, float, float]  # longitude, latitude, altitude


class Feature(BaseModel):
    properties: Properties
    geometry: Geometry


class Shots(BaseModel):
    """shots.geojson."""

    features: list[Feature]


class Found(NamedTuple):
    """Poses and lenses as a file has them, in a world of meters, east, north, up."""

    names: list[str]
    camera_to_world: Float64  # [C, 4, 4]
    cameras: list[Camera]
    points: Float64 | None
    georeference: Georeference | None


class OpenDroneMapData(DataConfig):
    """A project folder of OpenDroneMap or OpenSfM, with its pictures."""

    type: Literal["opendronemap"] = "opendronemap"
    priority: ClassVar[int] = -2  # a COLMAP model beside it was made on purpose

    images: str | None = Field(default=None, description="folder of the pictures; default: images")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with one of the files of poses."""
        return path.is_dir() and any((path / name).is_file() for name in (*RECONSTRUCTIONS, *SHOTS))

    def parse(self) -> Views:
        """Read poses and lenses. Raises InputError."""
        root = need_folder(self.path)
        names = [name for name in (*RECONSTRUCTIONS, *SHOTS) if (root / name).is_file()]
        if not names:
            raise InputError(f"{shown(root)} - no poses - expected one of {', '.join((*RECONSTRUCTIONS, *SHOTS))}")
        file = inside(root, names[0], where=shown(root), allow_outside=self.allow_outside)
        found = _reconstruction(file) if names[0] in RECONSTRUCTIONS else _shots(file, root)
        where = shown(file)
        if not 0 < len(found.names) <= MAX_FRAMES:
            raise InputError(f"{where} - got {len(found.names)} photographs - expected 1 to {MAX_FRAMES}")
        bases = [root / Path(self.images).expanduser()] if self.images else [root / name for name in PICTURES]
        limits = picture_folders.Limits(allow_outside=self.allow_outside, named=self.images is not None)
        pictures = picture_folders.choose(bases, found.names, where=where, downscale=1, limits=limits)
        lenses = [_lens(camera, where) for camera in found.cameras]
        size = np.array([(camera.width, camera.height) for camera in found.cameras], dtype=np.int64)
        intrinsics = np.array([_intrinsics(camera, where) for camera in found.cameras])
        fitted = picture_folders.fitted(intrinsics, size, pictures.paths, where=where)
        return Views(
            source=file,
            names=found.names,
            images=pictures.paths,
            camera_to_world=found.camera_to_world,
            intrinsics=fitted.intrinsics,
            size=fitted.size,
            distortion=np.array([_distortion(c, lens) for c, lens in zip(found.cameras, lenses, strict=True)]),
            lens=np.array(lenses, dtype=np.int64),
            points=found.points,
            up=np.array([0.0, 0.0, 1.0]),
            folder=pictures.folder,
            georeference=found.georeference,
            pose_key="rotation",
        )


def _reconstruction(file: Path) -> Found:
    """The largest part of reconstruction.json."""
    parts = parse_json(file, Reconstructions).root
    if not parts:
        raise InputError(f"{shown(file)} - got no reconstruction - expected one")
    part = max(parts, key=lambda one: len(one.shots))
    if len(parts) > 1:
        counts = ", ".join(str(len(one.shots)) for one in parts)
        notice(
            f"{shown(file)}: {len(parts)} reconstructions (photographs: {counts}), each in a frame of its own - taking"
            f" the largest, {len(part.shots)}"
        )
    names = sorted(part.shots)
    shots = [part.shots[name] for name in names]
    lost = next((shot.camera for shot in shots if shot.camera not in part.cameras), None)
    if lost is not None:
        raise InputError(f"{shown(file)}: shots - got the camera {shown(repr(lost[:60]))} - it is not in `cameras`")
    to_camera = np.tile(np.eye(4), (len(shots), 1, 1))
    to_camera[:, :3, :3] = _rotations([shot.rotation for shot in shots])
    poses = to_camera.transpose(0, 2, 1).copy()
    shift = np.array([shot.translation for shot in shots]).reshape(-1, 3)
    with np.errstate(invalid="ignore"):
        poses[:, :3, 3] = -np.einsum("cij,cj->ci", poses[:, :3, :3], shift)
    points = np.array([point.coordinates for point in part.points.values()]).reshape(-1, 3)
    place = part.reference_lla or _reference(file.with_name("reference_lla.json"))
    return Found(
        names=names,
        camera_to_world=poses,
        cameras=[part.cameras[shot.camera] for shot in shots],
        points=points[np.isfinite(points).all(axis=-1)] if len(points) else None,
        georeference=Georeference(place.latitude, place.longitude, place.altitude) if place else None,
    )


def _reference(file: Path) -> Place | None:
    return parse_json(file, Place) if file.is_file() else None


def _shots(file: Path, root: Path) -> Found:
    """shots.geojson with the lenses of cameras.json, if it is there."""
    features = sorted(parse_json(file, Shots).features, key=lambda one: one.properties.filename)
    if len(features) < 3:
        raise InputError(f"{shown(file)} - got {len(features)} photographs - expected three or more")
    shots = [feature.properties for feature in features]
    listed = root / "cameras.json"
    lenses = parse_json(listed, Cameras).root if listed.is_file() else {}
    places = np.array([feature.geometry.coordinates for feature in features])[:, [1, 0, 2]]
    on_earth = np.isfinite(places).all() and np.abs(places[:, 0]).max() <= 90 and np.abs(places).max() < 1e5
    grid = np.array([shot.translation for shot in shots])
    if not (on_earth and np.isfinite(grid).all() and np.abs(grid).max() < 1e9 and np.ptp(grid, axis=0).max() > 0):
        raise InputError(f"{shown(file)}: coordinates - expected longitude, latitude and altitude of each camera")
    origin = middle_of(places)
    poses = np.tile(np.eye(4), (len(shots), 1, 1))
    poses[:, :3, :3] = _rotations([shot.rotation for shot in shots]).transpose(0, 2, 1)
    # From single precision's reach to the origin first; then the grid's turn and scale against the true north.
    poses[:, :3, 3] = grid - grid.mean(axis=0)
    turned = fit_similarity(poses[:, :3, 3], origin.enu(places))
    cameras = [_camera_of(shot, lenses) for shot in shots]
    plain = sum(camera is None for camera in cameras)
    if plain:
        notice(f"{shown(file)} - {plain} of {len(shots)} photographs have no lens in cameras.json: read as undistorted")
    found = [camera or _plain(shot) for camera, shot in zip(cameras, shots, strict=True)]
    return Found([shot.filename for shot in shots], normalize.moved(poses, turned), found, None, origin)


def _camera_of(shot: Properties, lenses: dict[str, Camera]) -> Camera | None:
    """The lens that a shot names, else the one of its size with the nearest focal length; None without any."""
    alike = [lens for lens in lenses.values() if (lens.width, lens.height) == (shot.width, shot.height)]
    near = min(alike, key=lambda lens: abs((lens.focal or lens.focal_x or 0.0) - shot.focal), default=None)
    named = lenses.get(shot.camera or "")
    return named if named in alike else near


def _plain(shot: Properties) -> Camera:
    return Camera(width=shot.width, height=shot.height, focal=shot.focal)


def _rotations(vectors: list[Triple]) -> Float64:
    """[C, 3, 3] of axis times angle; NaN where that is no number."""
    from scipy.spatial.transform import Rotation  # takes longer to import than all formats

    table = np.array(vectors, dtype=np.float64).reshape(-1, 3)
    sound = (np.abs(table) < 1e6).all(axis=-1)
    result = np.full((len(table), 3, 3), np.nan)
    if sound.any():
        result[sound] = Rotation.from_rotvec(table[sound]).as_matrix()
    return result


def _lens(camera: Camera, where: str) -> Lens:
    for names, lens in ((BROWN, Lens.BROWN), (FISHEYE, Lens.FISHEYE), (PANORAMA, Lens.EQUIRECTANGULAR)):
        if camera.projection_type in names:
            return lens
    raise InputError(
        f"{where}: projection_type - got {shown(repr(camera.projection_type[:40]))} - expected one of"
        f" {', '.join((*BROWN, *FISHEYE, *PANORAMA))}"
    )


def _intrinsics(camera: Camera, where: str) -> list[float]:
    """fx fy cx cy in pixels."""
    if camera.projection_type in PANORAMA:
        return [camera.width / (2 * np.pi), camera.height / np.pi, camera.width / 2, camera.height / 2]
    side = max(camera.width, camera.height)
    along = camera.focal_x if camera.focal_x is not None else camera.focal
    if along is None:
        raise InputError(f"{where}: cameras - got no focal length - expected focal, or focal_x and focal_y")
    down = camera.focal_y if camera.focal_y is not None else along
    middle = camera.width / 2 + camera.c_x * side, camera.height / 2 + camera.c_y * side
    return [along * side, down * side, *middle]


def _distortion(camera: Camera, lens: Lens) -> Float64:
    row = np.zeros(8)
    for name, place in PLACES.get(lens, {}).items():
        row[place] = getattr(camera, name)
    return row
