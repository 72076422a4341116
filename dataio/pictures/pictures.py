"""Pictures of several sizes in one flat array: a list of pictures to look at, single pixels to gather."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]


class Pictures(Sequence[Array]):
    """All pictures of one kind, in one flat array in memory or in a file that is mapped.

    A picture is a view of the array, no copy; one of a mapped file, or with a factor, is a copy.
    """

    def __init__(
        self, flat: Array, shapes: Int64, *, factor: float | None = None, file: mmap.mmap | None = None
    ) -> None:
        """flat: [P] or [P, K], the pixels of all pictures row by row. shapes: [V, 2] height and width.

        factor: what stored numbers are multiplied by; the result is float32. file: what `flat` is a view of,
        when that is a file.
        """
        self.flat, self.shapes = flat, shapes
        self.start: Int64 = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64)
        self.factor, self.file = factor, file

    @classmethod
    def of(cls, pictures: Sequence[Array]) -> Pictures:
        """Themselves, or a copy of a list of pictures [H, W] or [H, W, K] in one array."""
        if isinstance(pictures, Pictures):
            return pictures
        flat = np.concatenate([picture.reshape(-1, *picture.shape[2:]) for picture in pictures])
        return cls(flat, np.array([picture.shape[:2] for picture in pictures], dtype=np.int64))

    @property
    def in_memory(self) -> int:
        """Bytes that do not lie in a file."""
        return 0 if self.file is not None else self.flat.nbytes

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # negative ones too, and IndexError beyond
        part = self.flat[self.start[index] : self.start[index + 1]]
        picture = part.reshape(*self.shapes[index], *part.shape[1:])
        return self._scaled(picture.copy() if self.file else picture)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    def times(self, factor: float) -> Pictures:
        """The same pictures [H, W] or [H, W, K] with every number multiplied, without a copy; float32."""
        return Pictures(self.flat, self.shapes, factor=(self.factor or 1.0) * factor, file=self.file)

    def take(self, places: Int64) -> Array:
        """The pixels at places [R] of the flat array: [R] or [R, K]."""
        if self.file is None:
            return self._scaled(self.flat[places])
        order = np.argsort(places)
        self._announce(places[order])
        values = np.empty((len(places), *self.flat.shape[1:]), dtype=self.flat.dtype)
        values[order] = self.flat[places[order]]
        return self._scaled(values)

    def _scaled(self, values: Array) -> Array:
        return values if self.factor is None else values.astype(np.float32) * np.float32(self.factor)

    def _announce(self, places: Int64) -> None:
        """Ask for all pages that will be read, so that the disk gets many requests at once and not one by one."""
        assert self.file is not None
        origin = self.flat.__array_interface__["data"][0] - _address(self.file)
        size = self.flat.dtype.itemsize * int(np.prod(self.flat.shape[1:], dtype=np.int64))
        for page in np.unique((origin + places * size) // mmap.PAGESIZE).tolist():
            self.file.madvise(mmap.MADV_WILLNEED, page * mmap.PAGESIZE, mmap.PAGESIZE)


def _address(file: mmap.mmap) -> int:
    return int(np.frombuffer(file, dtype=np.uint8, count=1).__array_interface__["data"][0])
