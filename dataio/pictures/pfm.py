"""Portable float maps, in which MVSNet's data keep depths: a text header of three lines, rows from below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataio.files import shown
from utils.errors import InputError

MAX_PIXELS = 200_000_000
HEADER_BYTES = 128

Float32 = npt.NDArray[np.float32]


def read_pfm(path: Path) -> Float32:
    """The numbers [H, W] of a gray PFM file. Raises InputError; allocates no more than the file holds."""
    try:
        with path.open("rb") as file:
            head = [file.readline(HEADER_BYTES).split() for _ in range(3)]
            width, height, order = _header(head, path)
            content = file.read(4 * width * height + 1)
    except OSError as error:
        raise InputError(f"{shown(path)} - cannot be read: {error.strerror}") from error
    if len(content) != 4 * width * height:
        raise InputError(f"{shown(path)} - got {len(content)} bytes of pixels - expected {4 * width * height}")
    return np.frombuffer(content, f"{order}f4").reshape(height, width)[::-1].astype(np.float32)


def _header(head: list[list[bytes]], path: Path) -> tuple[int, int, str]:
    """Width, height and byte order."""
    kind, size, scale = (b" ".join(words) for words in head)
    words = size.split()
    sound = kind == b"Pf" and len(words) == 2 and all(word.isdigit() and len(word) < 8 for word in words)
    if not sound or not 0 < int(words[0]) * int(words[1]) <= MAX_PIXELS:
        got = shown(repr((kind + b" " + size)[:40]))
        raise InputError(f"{shown(path)} - got the header {got} - expected Pf, width and height")
    return int(words[0]), int(words[1]), "<" if scale.startswith(b"-") else ">"
