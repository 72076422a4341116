"""What a photograph says of itself: orientation, camera, focal length, position, angles of a drone's gimbal.

All of it comes from strangers: it is read within bounds, and what makes no sense counts as not said.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from dataio.pictures import images

ORIENTATION, MAKE, MODEL, DETAILS, GPS = 0x112, 0x10F, 0x110, 0x8769, 0x8825
FOCAL, FOCAL_35, WIDTH, PLANE_X, PLANE_UNIT = 0x920A, 0xA405, 0xA002, 0xA20E, 0xA210
MILLIMETERS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # per FocalPlaneResolutionUnit
FILM_DIAGONAL = math.hypot(36, 24)
MOST_XMP = 2**18  # bytes
# What Pillow raises for EXIF that is damaged.
BROKEN_EXIF = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, struct.error, ArithmeticError, EOFError,
    AttributeError, RecursionError, MemoryError,
)  # fmt: skip


class Position(NamedTuple):
    """WGS-84, as a receiver gave it."""

    latitude: float  # degrees, north
    longitude: float  # degrees, east
    altitude: float | None  # meters; above the ellipsoid or the sea, receivers differ


class Gimbal(NamedTuple):
    """Where a drone's camera looked, degrees: heading from north by east, -90 straight down, roll to the right."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class Exif:
    """What is known; None for what is not."""

    orientation: int = 1  # 1 to 8
    camera: str = ""  # maker and model
    focal: float | None = None  # pixels, from the lens or its equivalent on film
    focal_millimeters: float | None = None
    position: Position | None = None
    gimbal: Gimbal | None = None


def read_exif(path: images.Source) -> Exif:
    """What the picture's header says, without decoding pixels. Raises InputError for what is no picture."""
    with images.opened(path) as picture, warnings.catch_warnings(action="ignore"):
        # Pillow would decode a PNG in search of EXIF behind its pixels.
        said = picture.format == "TIFF" or "exif" in picture.info
        top, details, gps = _tables(picture) if said else ({}, {}, {})
        xmp = picture.info.get("xmp", b"")
        orientation = _number(top.get(ORIENTATION))
        focal = _number(details.get(FOCAL))
        return Exif(
            orientation=int(orientation) if orientation is not None and orientation in range(1, 9) else 1,
            camera=" ".join(str(top.get(key, "")).strip("\0 ")[:64] for key in (MAKE, MODEL)).strip(),
            focal=_focal(details, picture.size),
            focal_millimeters=focal if focal and focal > 0 else None,
            position=_position(gps),
            gimbal=_gimbal(xmp[:MOST_XMP]) if isinstance(xmp, bytes) else None,
        )


def _tables(picture: Image.Image) -> tuple[Mapping[int, Any], Mapping[int, Any], Mapping[int, Any]]:
    try:
        top = picture.getexif()
        return dict(top), top.get_ifd(DETAILS), top.get_ifd(GPS)
    except BROKEN_EXIF:
        return {}, {}, {}


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except BROKEN_EXIF:
        return None
    return number if math.isfinite(number) else None


def _focal(details: Mapping[int, Any], size: tuple[int, int]) -> float | None:
    """Pixels. The equivalent on film first: it holds for copies in another size too."""
    film = _number(details.get(FOCAL_35))
    if film:
        return _usual(film / FILM_DIAGONAL * math.hypot(*size), size)
    focal, density = _number(details.get(FOCAL)), _number(details.get(PLANE_X))
    unit = MILLIMETERS.get(int(_number(details.get(PLANE_UNIT)) or 0))
    if not (focal and density and unit):
        return None
    width = _number(details.get(WIDTH)) or size[0]  # of the picture that was taken
    return _usual(focal / unit * density * size[0] / width, size) if width > 0 else None


def _usual(focal: float, size: tuple[int, int]) -> float | None:
    return focal if 0.2 < focal / max(size) < 50 else None


def _position(gps: Mapping[int, Any]) -> Position | None:
    latitude, longitude = _degrees(gps.get(2), gps.get(1), "NS"), _degrees(gps.get(4), gps.get(3), "EW")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    if latitude == longitude == 0:  # what receivers write that have no fix
        return None
    altitude = _number(gps.get(6))
    below = gps.get(5) in (b"\x01", 1)
    if altitude is not None and abs(altitude) > 1e5:
        altitude = None
    return Position(latitude, longitude, -altitude if below and altitude is not None else altitude)


def _degrees(parts: Any, side: Any, sides: str) -> float | None:
    """Degrees, minutes, seconds; minus in the second of the two hemispheres `sides`. A place in neither is none."""
    side = side.decode("ascii", "replace") if isinstance(side, bytes) else side
    side = side.strip("\0 ").upper()[:1] if isinstance(side, str) else ""
    if not isinstance(parts, tuple) or not 1 <= len(parts) <= 3 or not side or side not in sides:
        return None
    numbers = [_number(part) for part in parts]
    if any(number is None or number < 0 for number in numbers):
        return None
    total = sum((number or 0.0) / 60**place for place, number in enumerate(numbers))
    return -total if side == sides[1] else total


def _gimbal(xmp: bytes) -> Gimbal | None:
    """DJI's angles, as attributes or as elements. No XML parser: nothing is expanded, nothing is nested."""
    angles = []
    for name in (b"Yaw", b"Pitch", b"Roll"):
        found = re.search(rb"drone-dji:Gimbal" + name + rb'Degree\s{0,4}(?:=\s{0,4}["\']|>)\s{0,4}([-+.\d]{1,16})', xmp)
        angle = _number(found.group(1)) if found else None
        if angle is None or abs(angle) > 360:
            return None
        angles.append(angle)
    return Gimbal(*angles)
