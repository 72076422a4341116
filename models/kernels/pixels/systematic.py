"""Some of many by their scores, each with a known probability: `dataio.selection.scored`, number for number.

One block of a GPU's threads passes over the scores some five times: for their sum, for shares of it, for what is
certain, and for the running sum by which places are chosen. All sums are of whole numbers.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

from models.kernels.pixels.order import MIX, signed
from models.kernels.runtime.launch import launch
from models.kernels.runtime.native import Floats, Longs, native_kernel

THREADS = 512  # of the block, a power of two
SHARE, CERTAIN_BITS = 2**30, 38  # as in dataio.selection.scored; CERTAIN is two to the latter


def systematic(scores: Tensor, first: Tensor, count: int, *, uniform: float, seed: int) -> tuple[Tensor, Tensor]:
    """`count` <= M different places [K] int64 in 0 .. M-1, in order, and their importance [K] float32.

    scores: [M] int64, 0 to 2^30. first: [1] int64, which with the seed, any integer, gives the one random number.
    uniform: share of the probability that does not ask for the score. importance: K / M over the place's probability.
    Not differentiable.
    """
    places = torch.empty(count, dtype=torch.int64, device=scores.device)
    importance = torch.empty(count, device=scores.device)
    numbers = [max(int(uniform * SHARE), 1), (1 - uniform) * SHARE * len(scores), signed(seed)]
    given = [scores, first, torch.empty_like(scores), *numbers, places, importance]
    launch(_choose, 1, given, device=scores.device, threads=THREADS)
    return places, importance


_CHOOSE = (
    f"    enum {{ THREADS = {THREADS}, CERTAIN_BITS = {CERTAIN_BITS} }};"
    + MIX
    + """
#if defined(__CUDA_ARCH__)
    __shared__ long long parts[2 * THREADS];
    const int mine = threadIdx.x, all = blockDim.x;
    #undef THEN
    #define THEN __syncthreads()
#else
    long long parts[2];
    const int mine = 0, all = 1;
    #undef THEN
    #define THEN
#endif
    const long long CERTAIN = 1ll << CERTAIN_BITS;
    const int among = scores.shape[0], count = places.shape[0];
    // A piece of neighbors for each thread.
    const int piece = (among + all - 1) / all, begin = mine * piece < among ? mine * piece : among;
    const int end = begin + piece < among ? begin + piece : among;
    // The sums of two numbers of each thread over the block.
    long long *a = parts, *b = parts + all;
    auto add_up = [&](long long one, long long other) {
        THEN;
        a[mine] = one;
        b[mine] = other;
        for (int half = all / 2; half > 0; half /= 2) {
            THEN;
            if (mine < half) {
                a[mine] += a[mine + half];
                b[mine] += b[mine + half];
            }
        }
        THEN;
    };

    long long sum = 0;
    for (int i = begin; i < end; ++i) sum += scores.data[i];
    add_up(sum, 0);
    const long long scored = a[0] > 1 ? a[0] : 1;
    const double per_score = all_scores / (double)scored;
    sum = 0;
    for (int i = begin; i < end; ++i) sum += share.data[i] = base + (long long)((double)scores.data[i] * per_score);
    add_up(sum, 0);

    // What is certain leaves its surplus to the others, of which some may then be certain too.
    const long long total = a[0];
    long long sure = 0, rest = count, left = total, limit;
    for (;;) {
        limit = left / rest;
        long long above = 0, of_them = 0;
        for (int i = begin; i < end; ++i)
            if (share.data[i] > limit) {
                above += 1;
                of_them += share.data[i];
            }
        add_up(above, of_them);
        if (a[0] == sure) break;
        sure = a[0];
        rest = count - sure;
        left = total - b[0];
    }

    const double factor = (double)rest * (double)CERTAIN / (double)left;
    sum = 0;
    for (int i = begin; i < end; ++i)
        sum += share.data[i] = share.data[i] > limit ? CERTAIN : (long long)((double)share.data[i] * factor);
    // The running sum up to each thread's piece.
    THEN;
    a[mine] = sum;
    for (int step = 1; step < all; step *= 2) {
        THEN;
        const long long before = mine >= step ? a[mine - step] : 0;
        THEN;
        a[mine] += before;
    }
    THEN;
    long long room = a[all - 1] - (long long)(count - 1) * CERTAIN;
    room = room < CERTAIN ? room : CERTAIN;
    const long long start = (long long)(random_number((Word)seed, (Word)first.data[0]) * (double)room);
    long long reached = a[mine] - sum;
    for (int i = begin; i < end; ++i) {
        const long long before = reached, chance = share.data[i];
        reached += chance;
        const long long k = before <= start ? 0 : (before - start + CERTAIN - 1) >> CERTAIN_BITS;
        if (k >= count || start + (k << CERTAIN_BITS) >= reached) continue;
        places.data[k] = i;
        importance.data[k] = (float)((double)count / ((double)among * ((double)chance / (double)CERTAIN)));
    }
"""
)


@native_kernel(_CHOOSE)
def _choose(
    strip: int, scores: Longs, first: Longs, share: Longs, base: wp.int64, all_scores: wp.float64, seed: wp.int64,
    places: Longs, importance: Floats,
): ...
