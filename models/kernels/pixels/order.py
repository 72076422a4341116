"""A random order of 0 .. n-1 that needs no memory: `dataio.selection.permutation`, number for number."""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Longs, native_kernel

# SplitMix64's finalizer, and the random number in [0, 1) that belongs to a seed and a place.
MIX = """
    typedef unsigned long long Word;
    auto mix = [](Word v) {
        v = (v ^ (v >> 30)) * 0xBF58476D1CE4E5B9ull;
        v = (v ^ (v >> 27)) * 0x94D049BB133111EBull;
        return v ^ (v >> 31);
    };
    auto random_number = [&](Word seed_, Word place_) {
        return (double)(mix(mix(seed_ ^ 0xD1B54A32D192ED03ull) + place_) >> 11) * (1.0 / 9007199254740992.0);
    };
"""


def order(first: Tensor, places: int, *, count: int, seed: int) -> Tensor:
    """[P] int64 in 0 .. count-1: what stands at P = `places` places of the endless stream of epochs.

    first: [1] int64 >= 0, the first of them, read on its device. count: of what is ordered. seed: any integer. Not
    differentiable.
    """
    out = torch.empty(places, dtype=torch.int64, device=first.device)
    launch(_order, places, [first, count, signed(seed), out], device=first.device)
    return out


def signed(seed: int) -> int:
    """The 64 lowest bits of any integer, as the argument of a kernel."""
    return (seed + 2**63) % 2**64 - 2**63


@native_kernel(
    MIX
    + """
    const Word things = (Word)count, place = (Word)first.data[0] + (Word)item, start = mix((Word)seed) + place / things;
    int bits = 2;
    while ((things - 1) >> bits) ++bits;
    Word value = place % things;
    do {
        int left_bits = bits - bits / 2, right_bits = bits / 2;
        Word left = value >> right_bits, right = value & ((1ull << right_bits) - 1);
        for (Word turn = 1; turn <= 5; ++turn) {
            const Word key = mix(mix(start) ^ (turn * 0x9E3779B97F4A7C15ull));
            const Word mixed = (left ^ mix(right ^ key)) & ((1ull << left_bits) - 1);
            left = right;
            right = mixed;
            const int other_bits = left_bits;
            left_bits = right_bits;
            right_bits = other_bits;
        }
        value = (left << right_bits) | right;
    } while (value >= things);
    out.data[item] = (long long)value;
"""
)
def _order(item: int, first: Longs, count: wp.int64, seed: wp.int64, out: Longs): ...
