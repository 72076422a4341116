"""Agisoft Metashape: cameras.xml (File, Export, Export Cameras) with the pictures beside it.

Poses are camera-to-chunk with OpenCV axes. The chunk's transform leads to the Earth's center where the project has a
coordinate system, and then the world here is east, north, up in meters around the middle of the cameras. Pixel
centers are at +0.5; principal points count from the middle of the picture. Metashape's p1 and p2 are OpenCV's p2, p1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import Field

from dataio import normalize
from dataio.checks.usable import MOST_COORDINATE
from dataio.files import MAX_FRAMES, MAX_TEXT_BYTES, Float64, inside, need_folder, notice, shown
from dataio.formats import picture_folders
from dataio.georeference import A, Georeference, geodetic
from dataio.lens import Lens
from dataio.scene import DataConfig
from dataio.views import Views
from utils.errors import InputError

Element = ElementTree.Element
FILES = ("cameras.xml", "camera.xml", "metashape.xml")
PICTURES = ("images", "")
MOST_SKEW = 0.5  # pixels at the border; Rays have none
LENSES = {"frame": Lens.BROWN, "fisheye": Lens.FISHEYE, "spherical": Lens.EQUIRECTANGULAR}
# Elements that are looked at; an export has several others for each camera and point.
READ = frozenset((
    "document", "chunk", "sensors", "sensor", "resolution", "calibration", "cameras", "group", "camera", "components",
    "component", "transform", "rotation", "translation", "scale", "f", "cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2",
    "p3", "p4", "b1", "b2",
))  # fmt: skip
MAX_ELEMENTS = 10 * MAX_FRAMES  # in all
PIECE = 2**16  # bytes
NEAR_EARTH = (0.9 * A, 1.1 * A)  # from its center


class MetashapeData(DataConfig):
    """A folder with cameras.xml, or the path of such a file, and the pictures."""

    type: Literal["metashape"] = "metashape"
    priority: ClassVar[int] = -2

    images: str | None = Field(default=None, description="folder of the pictures; default: images")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with cameras.xml, or an .xml file."""
        return path.suffix.lower() == ".xml" if path.is_file() else any((path / name).is_file() for name in FILES)

    def parse(self) -> Views:
        """Read poses and lenses. Raises InputError."""
        path = need_folder(self.path)
        root = path.parent if path.is_file() else path
        name = path.name if path.is_file() else next((n for n in FILES if (root / n).is_file()), FILES[0])
        file = inside(root, name, where=shown(root), allow_outside=self.allow_outside)
        where = shown(file)
        chunk = _chunk(read_xml(file), where)
        sensors = {sensor.get("id"): sensor for sensor in chunk.iterfind("sensors/sensor")}
        cameras = [camera for camera in chunk.iter("camera") if _is_aligned(camera)][: MAX_FRAMES + 1]
        placements = _placements(chunk, cameras, where)
        cameras = _in_one_frame(placements, cameras, where)
        _say_slaves(chunk, where)
        if not 0 < len(cameras) <= MAX_FRAMES:
            raise InputError(f"{where} - got {len(cameras)} aligned cameras - expected 1 to {MAX_FRAMES}")
        cameras.sort(key=lambda camera: camera.get("label", ""))
        labels = [camera.get("label", "") for camera in cameras]
        bases = [root / Path(self.images).expanduser()] if self.images else [root / base for base in PICTURES]
        limits = picture_folders.Limits(allow_outside=self.allow_outside, named=self.images is not None)
        pictures = picture_folders.choose(bases, labels, where=where, downscale=1, limits=limits)
        poses, georeference = _world(placements, cameras, where)
        used = dict.fromkeys(camera.get("sensor_id") for camera in cameras)
        calibrations = {number: _calibration(sensors.get(number), where) for number in used}
        rows = [calibrations[camera.get("sensor_id")] for camera in cameras]
        intrinsics, size = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=np.int64)
        fitted = picture_folders.fitted(intrinsics, size, pictures.paths, where=where)
        return Views(
            source=file,
            names=[picture.name for picture in pictures.paths],
            images=pictures.paths,
            camera_to_world=poses,
            intrinsics=fitted.intrinsics,
            size=fitted.size,
            distortion=np.array([row[2] for row in rows]),
            lens=np.array([row[3] for row in rows], dtype=np.int64),
            up=np.array([0.0, 0.0, 1.0]),
            folder=pictures.folder,
            georeference=georeference,
            pose_key="transform",
        )


class _Pruned(ElementTree.TreeBuilder):
    """Keeps the elements in `READ`; of what else a file holds nothing is kept, whatever its size."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.skipped, self.count = where, 0, 0

    def start(self, tag: str, attributes: dict[str, str]) -> Any:
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise InputError(f"{self.where} - got more than {MAX_ELEMENTS} elements - expected the cameras of a chunk")
        if self.skipped or (tag not in READ and self.count > 1):
            self.skipped += 1
            return None
        return super().start(tag, attributes)

    def end(self, tag: str) -> Any:
        if self.skipped:
            self.skipped -= 1
            return None
        return super().end(tag)

    def data(self, text: str) -> None:
        if not self.skipped:
            super().data(text)

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """A document type could define entities that expand."""
        raise InputError(f"{self.where} - got a document type declaration - expected plain XML")


def read_xml(file: Path) -> Element:
    """The root of an XML file of bounded size, with those of its elements that are read. Raises InputError."""
    where = shown(file)
    parser = ElementTree.XMLParser(target=_Pruned(where))
    try:
        size = file.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise InputError(f"{where} - got {size} bytes - expected at most {MAX_TEXT_BYTES}")
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                parser.feed(piece)
        root = parser.close()
    except OSError as error:
        raise InputError(f"{where} - cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{where} - broken XML: {shown(error)}") from error
    if root is None:
        raise InputError(f"{where} - expected Metashape's <document> with a <chunk>")
    return root


def _chunk(root: Element, where: str) -> Element:
    chunks = [root] if root.tag == "chunk" else list(root.iterfind("chunk"))
    if root.tag not in ("document", "chunk") or not chunks:
        raise InputError(f"{where} - got <{shown(root.tag[:40])}> - expected Metashape's <document> with a <chunk>")
    counts = [sum(map(_is_aligned, chunk.iter("camera"))) for chunk in chunks]
    best = counts.index(max(counts))
    if len(chunks) > 1:
        notice(f"{where}: {len(chunks)} chunks with {', '.join(map(str, counts))} aligned cameras - taking the largest")
    return chunks[best]


def _in_one_frame(placements: dict[str, Float64 | None], cameras: list[Element], where: str) -> list[Element]:
    """All cameras where every component has its place; else those of the largest, since the others' frames are theirs.

    placements: [4, 4] of each component, as of `_placements`.
    """
    groups: dict[str, list[Element]] = {}
    for camera in cameras:
        groups.setdefault(camera.get("component_id", ""), []).append(camera)
    if len(groups) < 2 or all(placements[name] is not None for name in groups):
        return cameras
    largest = max(groups.values(), key=len)
    counts = ", ".join(str(len(group)) for group in groups.values())
    notice(f"{where}: {len(groups)} components with {counts} cameras, each in a frame of its own - taking the largest")
    return largest


def _say_slaves(chunk: Element, where: str) -> None:
    """A line about cameras of a rig whose place is only known by that of another one, their master."""
    without = [camera for camera in chunk.iter("camera") if camera.find("transform") is None]
    slaves = [camera for camera in without if camera.get("master_id") is not None]
    if slaves:
        notice(
            f"{where} - warning: {len(slaves)} cameras of a rig have no transform of their own, but a master's: their"
            " pictures are left out; export the poses for COLMAP, which has one for each picture"
        )


def _is_aligned(camera: Element) -> bool:
    return camera.find("transform") is not None and camera.get("enabled", "true") not in ("false", "0")


def _numbers(element: Element | None, count: int, where: str) -> Float64:
    """The numbers of an element's text. Raises InputError."""
    words = (element.text or "").split(maxsplit=count + 1) if element is not None else []
    try:
        numbers = np.array([float(word) for word in words[: count + 1]])
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        name = "element" if element is None else element.tag
        raise InputError(f"{where}: {shown(name[:40])} - expected {count} finite numbers")
    return numbers


def _placements(chunk: Element, cameras: list[Element], where: str) -> dict[str, Float64 | None]:
    """The similarity [4, 4] of each camera's component, by its id: its own, or the chunk's where none has one."""
    components = list(chunk.iterfind("components/component"))
    own = {component.get("id", ""): component.find("transform") for component in components}
    # Older files tell of one component and do not say which cameras are its own.
    own |= {"": components[0].find("transform")} if len(components) == 1 else {}
    of_chunk = None if any(place is not None for place in own.values()) else chunk.find("transform")
    names = dict.fromkeys(camera.get("component_id", "") for camera in cameras)
    places = {name: own.get(name) for name in names}
    return {name: _similarity(of_chunk if place is None else place, where) for name, place in places.items()}


def _similarity(place: Element | None, where: str) -> Float64 | None:
    """[4, 4] of a <transform>; None where it has no rotation, as without a coordinate system."""
    if place is None or place.find("rotation") is None:
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = _numbers(place.find("rotation"), 9, where).reshape(3, 3)
    matrix[:3, :3] *= _numbers(place.find("scale"), 1, where) if place.find("scale") is not None else 1.0
    matrix[:3, 3] = _numbers(place.find("translation"), 3, where)
    if not 0 < np.linalg.det(matrix[:3, :3]) < MOST_COORDINATE or not (np.abs(matrix) < MOST_COORDINATE).all():
        raise InputError(f"{where}: transform - expected a rotation, a scale above zero and a translation")
    return matrix


def _world(
    placements: dict[str, Float64 | None], cameras: list[Element], where: str
) -> tuple[Float64, Georeference | None]:
    """Poses [C, 4, 4], in meters east, north, up where the chunk or the components are placed on Earth."""
    poses = np.array([_numbers(camera.find("transform"), 16, where).reshape(4, 4) for camera in cameras])
    if not (np.abs(poses) < MOST_COORDINATE).all():
        raise InputError(f"{where}: transform - expected coordinates below {MOST_COORDINATE:g}")
    places = [placements[camera.get("component_id", "")] for camera in cameras]
    moved = [
        pose if place is None else normalize.moved(pose[None], place)[0]
        for pose, place in zip(poses, places, strict=True)
    ]
    poses = np.array(moved)
    middle = np.median(poses[:, :3, 3], axis=0)
    if places[0] is None or not NEAR_EARTH[0] < np.linalg.norm(middle) < NEAR_EARTH[1]:
        return poses, None  # the project's own frame, or a coordinate system of its own
    origin = Georeference(*geodetic(middle[None])[0].tolist())
    return normalize.moved(poses, origin.enu_from_ecef()), origin


def _calibration(sensor: Element | None, where: str) -> tuple[list[float], tuple[int, int], Float64, Lens]:
    """fx fy cx cy, size, distortion and lens of a sensor."""
    if sensor is None:
        raise InputError(f"{where}: sensor_id - a camera names a sensor that is not there")
    kind = sensor.get("type", "frame")
    if kind not in LENSES:
        raise InputError(f"{where}: sensor type - got {shown(repr(kind[:40]))} - expected one of {', '.join(LENSES)}")
    found = sensor.findall("calibration")
    calibration = next((c for c in found if c.get("class") == "adjusted"), found[0] if found else None)
    resolution = sensor.find("resolution") if calibration is None else calibration.find("resolution")
    resolution = sensor.find("resolution") if resolution is None else resolution
    sides = [resolution.get(key, "") if resolution is not None else "" for key in ("width", "height")]
    if not all(side.isdecimal() and 0 < len(side) < 8 and int(side) for side in sides):
        raise InputError(f"{where}: resolution - got {shown(repr(sides))[:60]} - expected width and height")
    width, height = map(int, sides)
    lens, row = LENSES[kind], np.zeros(8)
    if lens == Lens.EQUIRECTANGULAR:
        return [width / (2 * np.pi), height / np.pi, width / 2, height / 2], (width, height), row, lens
    if calibration is None or calibration.find("f") is None:
        raise InputError(f"{where}: calibration - a sensor has none with a focal length - expected <f>")

    def number(name: str) -> float:
        element = calibration.find(name)
        return 0.0 if element is None else float(_numbers(element, 1, where)[0])

    if abs(number("b2")) > MOST_SKEW * number("f") / max(width, height) * 2:
        notice(f"{where}: calibration - a skew b2 of {number('b2'):g} pixels is left out")
    names = ("k1", "k2", "p2", "p1", "k3") if lens == Lens.BROWN else ("k1", "k2", "k3", "k4")
    row[: len(names)] = [number(name) for name in names]
    if lens == Lens.BROWN and number("k4"):
        notice(f"{where}: calibration - k4 is left out")
    focal = number("f")
    return (
        [focal + number("b1"), focal, width / 2 + number("cx"), height / 2 + number("cy")],
        (width, height),
        row,
        lens,
    )
