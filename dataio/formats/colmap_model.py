"""The files of a COLMAP sparse model, binary or text, read with bounds: nothing is allocated on a count's word.

Only cameras, images and points3D are opened. Since COLMAP 3.12 there may be rigs and frames beside them; the
poses in images are still those of each photograph, with its place in the rig already in them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dataio.files import MAX_FRAMES, Float64, inside, notice, shown
from dataio.pictures.images import UInt8
from utils.errors import InputError

MAX_FILE_BYTES = 4 * 2**30
MAX_LINE_BYTES = 64 * 2**20
MAX_POINTS = 50_000_000
MAX_NAME_BYTES = 4096
POSES, POINTS = ("cameras", "images"), "points3D"  # points may be missing

Int64 = npt.NDArray[np.int64]
OBSERVATION = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])
# id, position, color, reprojection error, length of the track; the track follows: image and its observation
POINT = struct.Struct("<Q3d3BdQ")
PHOTO = struct.Struct("<I7dI")
CAMERA = struct.Struct("<IiQQ")
TRACK_ITEM_BYTES = 8
NO_POINT = -1


class Model(NamedTuple):
    """A camera model of COLMAP: its number in binary files, its name in text files, how many parameters."""

    number: int
    name: str
    parameters: int


MODELS = tuple(
    Model(number, name, parameters)
    for number, (name, parameters) in enumerate(
        {
            "SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8,
            "FULL_OPENCV": 12, "FOV": 5, "SIMPLE_RADIAL_FISHEYE": 4, "RADIAL_FISHEYE": 5, "THIN_PRISM_FISHEYE": 12,
            "RAD_TAN_THIN_PRISM_FISHEYE": 16, "SIMPLE_DIVISION": 4, "DIVISION": 5, "SIMPLE_FISHEYE": 3,
            "FISHEYE": 4, "EUCM": 6, "EQUIRECTANGULAR": 2,
        }.items()
    )
)  # fmt: skip
BY_NAME = {model.name: model for model in MODELS}


@dataclass(frozen=True)
class ModelCamera:
    """A calibrated camera as the model has it."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class Photo:
    """A registered photograph."""

    number: int
    name: str
    camera: int
    quaternion: tuple[float, ...]  # w x y z, world to camera
    translation: tuple[float, ...]  # world to camera
    pixel: Float64  # [N, 2] the observations that belong to a point; pixel centers at +0.5
    point: Int64  # [N] numbers of their points


@dataclass(frozen=True)
class ModelPoints:
    """The sparse points."""

    number: Int64  # [P]
    position: Float64  # [P, 3] world
    color: UInt8  # [P, 3]
    error: Float64  # [P] mean reprojection error in pixels; below 0: not known
    track: Int64  # [P] in how many photographs it was found


@dataclass(frozen=True)
class SparseModel:
    """What the three files say; nothing is checked beyond their form."""

    cameras: dict[int, ModelCamera]
    photos: list[Photo]
    points: ModelPoints


def suffix_of(folder: Path) -> str | None:
    """".bin" or ".txt" when the folder holds such a model (binary goes first), else None."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{part}{suffix}").is_file() for part in POSES):
            return suffix
    return None


def read_model(folder: Path, *, root: Path, allow_outside: bool = False) -> SparseModel:
    """The model in a folder; `root` is the folder that its files must lie in. Raises InputError."""
    suffix = suffix_of(folder)
    if suffix is None:
        raise InputError(f"{shown(folder)} - no COLMAP model in it - expected cameras, images and points3D")
    files = [_checked(folder, part + suffix, root, allow_outside) for part in POSES]
    if suffix == ".bin":
        cameras, photos = _binary_cameras(files[0]), _binary_photos(files[1])
    else:
        cameras, photos = _text_cameras(files[0]), _text_photos(files[1])
    _refuse_twins([camera for camera, _ in cameras], "CAMERA_ID", files[0])
    _refuse_twins([photo.number for photo in photos], "IMAGE_ID", files[1])
    points = _PointTable().points()
    if (folder / f"{POINTS}{suffix}").is_file():
        file = _checked(folder, POINTS + suffix, root, allow_outside)
        points = _binary_points(file) if suffix == ".bin" else _text_points(file)
        _refuse_twins(points.number.tolist(), "POINT3D_ID", file)
    else:
        notice(f"{shown(folder)} - no {POINTS}{suffix}: going on with its poses, without sparse points")
    return SparseModel(dict(cameras), photos, points)


def count_photos(folder: Path, *, root: Path, allow_outside: bool = False) -> int:
    """How many photographs the model in a folder says it has, without reading it all. Raises InputError."""
    suffix = suffix_of(folder)
    file = _checked(folder, f"images{suffix}", root, allow_outside)
    if suffix == ".bin":
        with _opened(file, _Binary) as stream:
            return int(stream.count("images", PHOTO.size + 9, MAX_FRAMES))
    with _opened(file, _Text) as stream:
        return sum(1 for _ in stream.lines(keep_empty=True)) // 2


def _checked(folder: Path, name: str, root: Path, allow_outside: bool) -> Path:
    path = folder / name
    if not allow_outside and folder.is_relative_to(root):
        inside(root, path.relative_to(root).as_posix(), where=shown(root))
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(f"{shown(path)} - got {size} bytes - expected at most {MAX_FILE_BYTES}")
    return path


def _refuse_twins(numbers: list[int], what: str, path: Path) -> None:
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{shown(path)}: {what} - two entries have the same number - expected each once")


# --- binary ------------------------------------------------------------------------------------------------


class _Binary:
    """A binary file that keeps count of how much of it is left."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self.place = file, shown(path), ""
        self._left = path.stat().st_size

    def bytes(self, size: int) -> bytes:
        """The next bytes. Raises InputError at the file's end."""
        if size > self._left:
            raise InputError(f"{self._path}: {self.place} - the file ends too early ({self._left} bytes left)")
        content = self._file.read(size)
        if len(content) < size:
            raise InputError(f"{self._path}: {self.place} - the file ends too early")
        self._left -= size
        return content

    def count(self, what: str, least_bytes: int, most: int) -> int:
        """The next number of entries, refused when the rest of the file cannot hold them."""
        self.place = what
        (count,) = struct.unpack("<Q", self.bytes(8))
        if count * least_bytes > self._left or count > most:
            room = min(self._left // least_bytes, most)
            raise InputError(f"{self._path}: {what} - got {count} - the file has room for {room}")
        return int(count)

    def skip(self, count: int, each: int) -> None:
        """Go past `count` entries."""
        if count * each > self._left:
            raise InputError(f"{self._path}: {self.place} - got {count} entries - the file ends before them")
        self._file.seek(count * each, 1)
        self._left -= count * each

    def name(self) -> str:
        """Text up to a zero byte."""
        text = bytearray()
        while (byte := self.bytes(1)) != b"\0":
            text += byte
            if len(text) > MAX_NAME_BYTES:
                raise InputError(f"{self._path}: {self.place} - a name without an end - expected a zero byte")
        return _decoded(bytes(text), f"{self._path}: {self.place}")

    def end(self) -> None:
        """Raises InputError when something is left."""
        if self._left:
            raise InputError(f"{self._path} - {self._left} bytes are left after the last entry - is it damaged?")

    def fault(self, text: str) -> InputError:
        """An error at this place of the file."""
        return InputError(f"{self._path}: {self.place} - {text}")


def _decoded(name: bytes, where: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} - the name is not UTF-8 text") from error


def _binary_cameras(path: Path) -> list[tuple[int, ModelCamera]]:
    cameras = []
    with _opened(path, _Binary) as stream:
        for index in range(stream.count("cameras", CAMERA.size + 16, MAX_FRAMES)):
            stream.place = f"cameras[{index}]"
            number, kind, width, height = CAMERA.unpack(stream.bytes(CAMERA.size))
            if not 0 <= kind < len(MODELS):
                raise stream.fault(f"got the camera model {kind} - expected 0 to {len(MODELS) - 1}")
            model = MODELS[kind]
            values = struct.unpack(f"<{model.parameters}d", stream.bytes(8 * model.parameters))
            cameras.append((number, ModelCamera(model.name, *_size(width, height, stream.fault), values)))
        stream.end()
    return cameras


def _size(width: int, height: int, fault: Callable[[str], InputError]) -> tuple[int, int]:
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise fault(f"got a picture of {width} x {height} - expected a size in pixels")
    return width, height


def _binary_photos(path: Path) -> list[Photo]:
    photos = []
    with _opened(path, _Binary) as stream:
        for index in range(stream.count("images", PHOTO.size + 9, MAX_FRAMES)):
            stream.place = f"images[{index}]"
            number, *pose, camera = PHOTO.unpack(stream.bytes(PHOTO.size))
            name = stream.name()
            stream.place = f"images[{index}] {shown(name)}"
            count = stream.count(stream.place, OBSERVATION.itemsize, MAX_POINTS)
            seen = np.frombuffer(stream.bytes(count * OBSERVATION.itemsize), OBSERVATION)
            seen = seen[seen["point"] != NO_POINT]
            pixel, point = seen["pixel"].astype(np.float64), seen["point"].astype(np.int64)
            photos.append(Photo(number, name, camera, tuple(pose[:4]), tuple(pose[4:]), pixel, point))
        stream.end()
    return photos


def _binary_points(path: Path) -> ModelPoints:
    table = _PointTable()
    with _opened(path, _Binary) as stream:
        for index in range(stream.count("points3D", POINT.size, MAX_POINTS)):
            stream.place = f"points3D[{index}]"
            number, *reals, length = POINT.unpack(stream.bytes(POINT.size))
            stream.skip(length, TRACK_ITEM_BYTES)
            if number >= 2**63:
                raise stream.fault(f"got the POINT3D_ID {number} - expected less than 2^63")
            table.add(number, length, *reals)
        stream.end()
    return table.points()


# --- text --------------------------------------------------------------------------------------------------


class _Text:
    """A text file, line by line, no line longer than a bound."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self.number, self.line = file, shown(path), 0, b""

    def lines(self, *, keep_empty: bool = False) -> Iterator[list[bytes]]:
        """The words of each line that is no comment."""
        while line := self._file.readline(MAX_LINE_BYTES):
            self.number += 1
            if len(line) == MAX_LINE_BYTES:
                raise self.fault(f"a line of more than {MAX_LINE_BYTES} bytes - is it a COLMAP text model?")
            self.line = line = line.removeprefix(b"\xef\xbb\xbf")  # of a file's beginning
            words = line.split()
            if (words or keep_empty) and not line.lstrip().startswith(b"#"):
                yield words

    def fault(self, text: str) -> InputError:
        """An error at this line."""
        return InputError(f"{self._path}:{self.number} - {text}")

    def numbers(self, words: list[bytes]) -> list[float]:
        """The words as numbers."""
        try:
            return [float(word) for word in words]
        except ValueError as error:
            raise self.fault(f"got {shown(repr(words)[:60])} - expected numbers") from error

    def whole(self, word: bytes) -> int:
        """The word as a whole number from 0 on."""
        if not word.isdigit() or len(word) > 18:
            raise self.fault(f"got {shown(word[:30].decode(errors='replace'))} - expected a whole number")
        return int(word)


def _text_cameras(path: Path) -> list[tuple[int, ModelCamera]]:
    cameras = []
    with _opened(path, _Text) as text:
        for words in text.lines():
            name = words[1].decode("ascii", errors="replace") if len(words) > 1 else ""
            if name not in BY_NAME:
                known = ", ".join(BY_NAME)
                raise text.fault(f"got the camera model {shown(name[:40])} - expected one of {known}")
            if len(words) != 4 + BY_NAME[name].parameters:
                raise text.fault(f"got {len(words) - 4} parameters - {name} has {BY_NAME[name].parameters}")
            size = _size(text.whole(words[2]), text.whole(words[3]), text.fault)
            camera = ModelCamera(name, *size, tuple(text.numbers(words[4:])))
            cameras.append((text.whole(words[0]), camera))
    return cameras


def _text_photos(path: Path) -> list[Photo]:
    photos = []
    with _opened(path, _Text) as text:
        lines = text.lines(keep_empty=True)
        for words in lines:
            if not words:  # between two images; an image without points has an empty line of its own
                continue
            if len(words) < 10:
                raise text.fault("expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
            pose = text.numbers(words[1:8])
            name = _decoded(text.line.split(maxsplit=9)[9].rstrip(), f"{shown(path)}:{text.number}")
            head = text.whole(words[0]), name, text.whole(words[8]), tuple(pose[:4]), tuple(pose[4:])
            photos.append(Photo(*head, *_observations(next(lines, []), text)))
            if len(photos) > MAX_FRAMES:
                raise text.fault(f"got more than {MAX_FRAMES} images")
    return photos


def _observations(words: list[bytes], text: _Text) -> tuple[Float64, Int64]:
    if len(words) % 3:
        rule = "each image has two lines, the second, of X Y POINT3D_ID of each point, empty where it sees none"
        raise text.fault(f"got {len(words)} numbers of observations - {rule}")
    try:
        table = np.array(words, dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise text.fault("expected X Y POINT3D_ID of each observation") from error
    table = table[(table[:, 2] >= 0) & (table[:, 2] < 2**53)]  # -1: of no point; NaN goes too
    return table[:, :2].copy(), table[:, 2].astype(np.int64)


def _text_points(path: Path) -> ModelPoints:
    table = _PointTable()
    with _opened(path, _Text) as text:
        for words in text.lines():
            if len(words) < 8 or len(words) % 2:
                raise text.fault("expected POINT3D_ID X Y Z R G B ERROR and IMAGE_ID POINT2D_IDX of each view")
            reals = text.numbers(words[1:8])
            table.add(text.whole(words[0]), (len(words) - 8) // 2, *reals)
    return table.points()


# --- both --------------------------------------------------------------------------------------------------


Reader = TypeVar("Reader", _Binary, _Text)


@contextmanager
def _opened(path: Path, reader: type[Reader]) -> Iterator[Reader]:
    try:
        with path.open("rb") as file:
            yield reader(file, path)
    except OSError as error:
        raise InputError(f"{shown(path)} - cannot be read: {error.strerror}") from error


class _PointTable:
    """Points as they come in, in flat arrays: a row as a Python tuple would take ten times the memory."""

    def __init__(self) -> None:
        self._whole, self._real = array("q"), array("d")

    def add(self, number: int, track: int, *reals: float) -> None:
        """reals: x, y, z, red, green, blue, error."""
        self._whole.extend((number, track))
        self._real.extend(reals)

    def points(self) -> ModelPoints:
        """All of them."""
        whole, real = np.array(self._whole, np.int64).reshape(-1, 2), np.array(self._real, np.float64).reshape(-1, 7)
        colors = np.nan_to_num(real[:, 3:6]).clip(0, 255)
        return ModelPoints(whole[:, 0], real[:, :3], colors.astype(np.uint8), real[:, 6], whole[:, 1])
