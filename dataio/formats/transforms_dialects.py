"""Keys of transforms.json that other programs write: which lens they mean, and what of them is not read here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dataio.files import notice, shown
from dataio.lens import Lens
from dataio.quantities.base import quantities
from utils.errors import InputError

# Keys of lenses that are not read: NVIDIA's f-theta, panoramas, higher orders.
OTHER_LENS = re.compile(r"ftheta_\w+|k[5-9]|p[3-9]|s[1-4]|tau[xy]|(is_)?(lat_?long|equirect\w*|omni\w*|ortho\w*)")
CAMERA_MODELS = (
    "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE",
)  # fmt: skip
OTHER_AXES = ("from_na", "from_mitsuba")  # instant-ngp: the poses have other axes
# What is passed over with a line, and how the pictures are taken instead.
PASSED_OVER = {
    "rolling_shutter": "each picture counts as taken at one moment",
    "mask_color": "no color counts as transparent; give the pictures an alpha",
    "black_transparent": "no color counts as transparent; give the pictures an alpha",
    "white_transparent": "no color counts as transparent; give the pictures an alpha",
}


def lens_kind(camera_model: str | None, is_fisheye: bool | None, where: str) -> Lens:
    """The lens that a frame names. Raises InputError for a model that is not read here."""
    if camera_model is not None and camera_model not in CAMERA_MODELS:
        raise InputError(
            f"{where}: camera_model - got {shown(camera_model)} - expected one of {', '.join(CAMERA_MODELS)}"
        )
    return Lens.FISHEYE if is_fisheye or camera_model == "OPENCV_FISHEYE" else Lens.BROWN


def look_over(extras: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Look over the keys that were not read, by their place in the file: a line for what is passed over.

    Raises InputError for keys without which every ray would be wrong: those of other lenses and other axes.
    """
    for place, keys in extras.items():
        _refuse(place, keys)
    said = {name: value for keys in extras.values() for name, value in keys.items() if _says_something(value)}
    for name in said.keys() & PASSED_OVER.keys():
        notice(f"{where}: {name} - not read: {PASSED_OVER[name]}")
    read = {key for each in quantities().values() for key in each.frame_keys}
    for name, value in said.items():
        if name.endswith(("_path", "_paths")) and name not in read and isinstance(value, str):
            notice(f"{where}: {name} - not read: the keys that name files are file_path, {', '.join(sorted(read))}")
    if len({keys["time"] for keys in extras.values() if isinstance(keys.get("time"), int | float)}) > 1:
        notice(f"{where}: time - not read: the scene counts as one that does not move")


def _refuse(place: str, keys: Mapping[str, Any]) -> None:
    found = sorted(name for name, value in keys.items() if value and OTHER_LENS.fullmatch(name))
    if found:
        raise InputError(
            f"{place}: {', '.join(found)} - a lens that is not read here - expected k1 to k4, p1, p2, or"
            " camera_model OPENCV_FISHEYE; undistort the pictures first"
        )
    axes = [name for name in OTHER_AXES if keys.get(name)]
    if axes:
        raise InputError(f"{place}: {axes[0]} - poses with other axes - expected camera-to-world with OpenGL's axes")


def _says_something(value: Any) -> bool:
    """Whether a value is neither empty nor all zeros."""
    return any(map(_says_something, value)) if isinstance(value, list) else bool(value)
