"""A random order of 0 .. n-1 that needs no memory: any place of any epoch is computed on demand.

A Feistel network permutes the smallest power of two that holds n; places that fall outside 0 .. n-1 walk on
along their cycle until they are inside, which keeps it a permutation (Black and Rogaway, 2002).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dataio.pictures.device_pixels import PixelKernels

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

ROUNDS = 5
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STARTS = np.uint64(0xD1B54A32D192ED03)  # so that random numbers have nothing to do with the keys of an epoch


class Permutation:
    """The orders of 0 .. n-1 that belong to a seed, one per epoch."""

    def __init__(self, count: int, seed: int) -> None:
        """count: n >= 1. seed: any integer."""
        if count < 1:
            raise ValueError(f"a permutation of {count} things")
        self.count = count
        self._seed = seed
        bits = max(2, (count - 1).bit_length())
        self._low_bits = np.uint64(bits // 2)
        self._high_bits = np.uint64(bits - bits // 2)

    def stream(self, places: Int64) -> Int64:
        """What stands at `places` >= 0 [N] of the endless stream epoch 0, epoch 1, ...: [N] in 0 .. n-1."""
        epochs, within = np.divmod(places, self.count)
        if len(places) and epochs.min() == epochs.max():
            return self.epoch(within, int(epochs[0]))
        result = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self.epoch(within[here], int(epoch))
        return result

    def on_device(self, kernels: PixelKernels, first: Tensor, places: int) -> Tensor:
        """[P] int64, what stands at P = `places` places of the stream from `first` [1] int64 on, on its device."""
        return kernels.order(first, places, count=self.count, seed=self._seed)

    def epoch(self, places: Int64, epoch: int) -> Int64:
        """What stands at `places` in 0 .. n-1 [N] of one epoch: [N] in 0 .. n-1."""
        keys = _keys(self._seed, epoch)
        values = self._network(places.astype(np.uint64), keys)
        walking = np.flatnonzero(values >= self.count)
        while len(walking):
            values[walking] = self._network(values[walking], keys)
            walking = walking[values[walking] >= self.count]
        return values.astype(np.int64)

    def _network(self, values: UInt64, keys: UInt64) -> UInt64:
        # The halves may differ by one bit; they change places each round, and so do their widths.
        left_bits, right_bits = self._high_bits, self._low_bits
        one = np.uint64(1)
        left, right = values >> right_bits, values & ((one << right_bits) - one)
        for key in keys:
            mixed = (left ^ _mix(right ^ key)) & ((one << left_bits) - one)
            left, right = right, mixed
            left_bits, right_bits = right_bits, left_bits
        return np.asarray((left << right_bits) | right)


def random_number(seed: int, place: int) -> float:
    """In [0, 1), that belongs to a seed, any integer, and a place >= 0: 53 random bits."""
    start = _mix(np.array([seed % 2**64], dtype=np.uint64) ^ STARTS)
    return float(_mix(start + np.uint64(place))[0] >> np.uint64(11)) * 2.0**-53


def _keys(seed: int, epoch: int) -> UInt64:
    """One key per round, [ROUNDS]."""
    start = _mix(np.full(ROUNDS, seed % 2**64, dtype=np.uint64)) + np.uint64(epoch)
    return _mix(_mix(start) ^ (np.arange(1, ROUNDS + 1, dtype=np.uint64) * GOLDEN))


def _mix(values: UInt64) -> UInt64:
    """SplitMix64's finalizer: every bit of the input reaches every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
