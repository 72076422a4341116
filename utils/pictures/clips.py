"""Frames to a clip that pages and messages play by themselves: GIF or WebP, without end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from utils.files import replacing
from utils.pictures.images import Picture

SUFFIXES = (".gif", ".webp")
MOST_SIDE = {".gif": 65535, ".webp": 16383}
QUALITY = 85  # of WebP, 0 to 100


def write_clip(path: Path, frames: Iterable[Picture], count: int, *, fps: float) -> None:
    """Write a .gif or .webp of `count` frames [H, W, 3] uint8 of one size.

    A GIF counts in hundredths of a second and has 256 colors per frame; frames are shown as long as it takes to keep
    the mean rate. Raises StorageError where the disk refuses.
    """
    first, *rest = map(Image.fromarray, frames)
    unit = 100 if path.suffix.lower() == ".gif" else 1000  # per second
    ends = np.rint(np.arange(count + 1) * unit / fps).astype(int)
    durations = (np.diff(ends).clip(1) * (1000 // unit)).tolist()
    with replacing(path) as temporary:
        first.save(
            temporary,
            save_all=True,
            append_images=rest,
            duration=durations if count > 1 else durations[0],
            loop=0,
            quality=QUALITY,
            optimize=False,
            disposal=1,
        )
