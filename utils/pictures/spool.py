"""Pictures that are written pixel by pixel and read row by row, in memory as long as they are small."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 16 << 20  # bytes; beyond, a file without a name holds them


class Spool:
    """An array [H, W, ...] that is appended to in the order of its pixels and read by `spool[top:bottom]`."""

    def __init__(self, height: int, width: int, channels: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.shape = (height, width, *channels)
        self.dtype = np.dtype(dtype)
        self.file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - it lives as long as the spool
        self.row = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def append(self, pixels: NDArray[Any]) -> None:
        """The next pixels [R, ...], row by row."""
        assert pixels.dtype == self.dtype and pixels.shape[1:] == self.shape[2:]
        self.file.write(np.ascontiguousarray(pixels).tobytes())

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Rows [h, W, ...] from `rows.start` to `rows.stop`; all of them must have been appended."""
        top, bottom, _ = rows.indices(self.shape[0])
        self.file.seek(top * self.row)
        data = self.file.read((bottom - top) * self.row)
        return np.frombuffer(data, self.dtype).reshape(bottom - top, *self.shape[1:])

    def __del__(self) -> None:
        self.file.close()
