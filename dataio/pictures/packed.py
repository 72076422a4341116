"""Pictures that are a stretch of a larger file: read when they are needed, never more than was promised."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataio.files import shown
from utils.errors import InputError


@dataclass(frozen=True)
class Packed:
    """`length` bytes of `file` from `start` on: an image as a file of its own would hold it."""

    file: Path
    start: int
    length: int
    name: str  # for messages

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def is_file(self) -> bool:
        """Whether there is anything to read."""
        return self.length > 0 and self.file.is_file()

    def read(self) -> bytes:
        """The bytes. Raises InputError when the file is shorter than it was."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.start)
                content = stream.read(self.length)
        except OSError as error:
            raise InputError(f"{shown(self)} - cannot be read: {error.strerror}") from error
        if len(content) < self.length:
            raise InputError(f"{shown(self)} - got {len(content)} bytes - expected {self.length}")
        return content


@dataclass(frozen=True)
class PackedNumbers(Packed):
    """A stretch that holds height x width numbers of 16 bits, little endian, row by row; perhaps deflated."""

    size: tuple[int, int]  # width, height
    deflated: bool

    def numbers(self) -> npt.NDArray[np.uint16]:
        """[H, W]. Raises InputError for damaged bytes and for any other number of them; bombs stay folded."""
        expected = 2 * self.size[0] * self.size[1]
        content = self.read()
        if self.deflated:
            try:
                content = zlib.decompressobj().decompress(content, expected + 1)
            except zlib.error as error:
                raise InputError(f"{shown(self)} - damaged depth: {error}") from error
        if len(content) != expected:
            got = f"more than {expected}" if len(content) > expected else str(len(content))
            raise InputError(f"{shown(self)} - got {got} bytes of depth - expected {expected}")
        return np.frombuffer(content, dtype="<u2").reshape(self.size[1], self.size[0])
