"""The .sens files of ScanNet: where each frame lies, found without decoding any.

Little endian. Header: version 4, the sensor's name, four 4x4 float matrices (color and depth: intrinsic, extrinsic),
compressions, sizes, depth units per meter, the number of frames. Each frame: 4x4 float camera-to-world, two times,
two lengths, the color bytes, the depth bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataio.files import MAX_FRAMES, Float64, shown
from dataio.pictures.images import MAX_PIXELS
from dataio.pictures.packed import Packed, PackedNumbers
from utils.errors import InputError

VERSION = 4
MAX_NAME = 4096
MATRICES = ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth")
COLOR_CODES = {1: "PNG", 2: "JPEG"}
DEPTH_CODES = {0: "as it is", 1: "deflated"}
FRAME = struct.Struct("<16fQQQQ")


@dataclass(frozen=True)
class Recording:
    """What a .sens file holds; its pictures are read later."""

    calibrations: dict[str, Float64]  # [4, 4] by the names of MATRICES
    camera_to_world: Float64  # [C, 4, 4]
    colors: list[Packed]
    depths: list[PackedNumbers]
    depth_shift: float  # stored numbers per meter


def read_sens(path: Path) -> Recording:
    """The header and the places of all frames of a .sens file.

    No count or length is believed before it is compared with the size of the file. Raises InputError.
    """
    try:
        with path.open("rb") as stream:
            return _recording(_Reader(stream, path, path.stat().st_size))
    except OSError as error:
        raise InputError(f"{shown(path)} - cannot be read: {error.strerror}") from error


class _Reader:
    """A file that is read from front to back, never beyond its end."""

    def __init__(self, stream: BinaryIO, path: Path, size: int) -> None:
        self.stream, self.path, self.size, self.position = stream, path, size, 0

    def unpack(self, layout: struct.Struct, key: str) -> tuple[int | float, ...]:
        content = self.stream.read(layout.size)
        if len(content) < layout.size:
            raise self.fault(key, f"the file ends at byte {self.size}", "it complete")
        self.position += layout.size
        return layout.unpack(content)

    def whole(self, code: str, key: str) -> int:
        return int(self.unpack(struct.Struct("<" + code), key)[0])

    def skip(self, length: int, key: str) -> int:
        """Pass over `length` bytes; returns where they start."""
        start = self.position
        if length > self.size - start:
            raise self.fault(key, f"{length} bytes", f"at most the {self.size - start} that are left")
        self.position += length
        self.stream.seek(self.position)
        return start

    def fault(self, key: str, got: str, expected: str) -> InputError:
        return InputError(f"{shown(self.path)}: {key} - got {got} - expected {expected}")


def _recording(reader: _Reader) -> Recording:
    version = reader.whole("I", "version")
    if version != VERSION:
        raise reader.fault("version", str(version), f"{VERSION}, a .sens file of ScanNet")
    name = reader.whole("Q", "sensor name")
    if name > MAX_NAME:
        raise reader.fault("sensor name", f"{name} bytes", f"at most {MAX_NAME}")
    reader.skip(name, "sensor name")
    matrix = struct.Struct("<16f")
    calibrations = {key: np.array(reader.unpack(matrix, key)).reshape(4, 4) for key in MATRICES}
    color_code, depth_code = reader.whole("i", "color compression"), reader.whole("i", "depth compression")
    for key, code, known in (("color", color_code, COLOR_CODES), ("depth", depth_code, DEPTH_CODES)):
        if code not in known:
            names = ", ".join(f"{number} ({text})" for number, text in known.items())
            raise reader.fault(f"{key} compression", str(code), names)
    sizes = [reader.whole("I", key) for key in ("color width", "color height", "depth width", "depth height")]
    if min(sizes) < 1 or max(sizes[0] * sizes[1], sizes[2] * sizes[3]) > MAX_PIXELS:
        raise reader.fault("size", f"{sizes[0]} x {sizes[1]}, {sizes[2]} x {sizes[3]}", f"1 to {MAX_PIXELS} pixels")
    shift = float(reader.unpack(struct.Struct("<f"), "depth shift")[0])
    if not (np.isfinite(shift) and shift > 0):
        raise reader.fault("depth shift", f"{shift:g}", "stored numbers per meter, such as 1000")
    count = reader.whole("Q", "number of frames")
    most = min(MAX_FRAMES, (reader.size - reader.position) // FRAME.size)
    if not 0 < count <= most:
        raise reader.fault("number of frames", str(count), f"1 to {most}, for which the file has room")
    return _frames(reader, count, calibrations, (sizes[2], sizes[3]), deflated=depth_code == 1, shift=shift)


def _frames(
    reader: _Reader,
    count: int,
    calibrations: dict[str, Float64],
    depth_size: tuple[int, int],
    *,
    deflated: bool,
    shift: float,
) -> Recording:
    poses = np.empty((count, 4, 4))
    colors, depths = [], []
    for frame in range(count):
        key = f"frame {frame}"
        row = reader.unpack(FRAME, key)
        poses[frame] = np.array(row[:16]).reshape(4, 4)
        color_length, depth_length = int(row[18]), int(row[19])
        start = reader.skip(color_length, f"{key} color")
        colors.append(Packed(reader.path, start, color_length, f"{key} color"))
        start = reader.skip(depth_length, f"{key} depth")
        depths.append(
            PackedNumbers(reader.path, start, depth_length, f"{key} depth", size=depth_size, deflated=deflated)
        )
    return Recording(calibrations, poses, colors, depths, shift)
