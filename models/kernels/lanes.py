"""C++ for the bodies of kernels that handle several points at once: a vector register on a CPU, one point on a GPU.

Warp compiles a body as it stands, for the machine's own instruction set on a CPU, where whole registers of points make
a kernel several times faster than one point after another. The names below mean the same on both: `vf`, `vi` and `vu`
are floats, ints and unsigned ints of `LANES` points.
"""

from __future__ import annotations

import torch

LANES = 16  # on a CPU


def lanes(device: torch.device) -> int:
    """How many points a block holds on this device."""
    return LANES if device.type == "cpu" else 1


TYPES = """
#undef LANE
#undef TO_INT
#undef TO_UNSIGNED
#undef TO_FLOAT
#undef VMAX
#undef VMIN
#undef GATHER
#undef PAIRS
#undef PAIR_UP
#undef ADD_PAIR
#undef ROW
#undef LOAD2
#undef LOAD3
#if defined(__CUDA_ARCH__)
    enum { LANES = 1 };
    typedef float vf;
    typedef int vi;
    typedef unsigned vu;
    #define LANE(v, l) v
    #define TO_INT(v) (vi)(v)
    #define TO_UNSIGNED(v) (vu)(v)
    #define TO_FLOAT(v) (vf)(v)
    #define VMAX(a, b) ((a) > (b) ? (a) : (b))
    #define VMIN(a, b) ((a) < (b) ? (a) : (b))
    #define PAIRS float2
    #define PAIR_UP(a, b) make_float2(a, b)
    #define ADD_PAIR(at, pairs, l) do { atomicAdd(at, pairs.x); atomicAdd((at) + 1, pairs.y); } while (0)
#else
    enum { LANES = 16 };
    typedef float vf __attribute__((ext_vector_type(16)));
    typedef int vi __attribute__((ext_vector_type(16)));
    typedef unsigned vu __attribute__((ext_vector_type(16)));
    #define LANE(v, l) v[l]
    #define TO_INT(v) __builtin_convertvector(v, vi)
    #define TO_UNSIGNED(v) __builtin_convertvector(v, vu)
    #define TO_FLOAT(v) __builtin_convertvector(v, vf)
    #define VMAX(a, b) __builtin_elementwise_max(a, b)
    #define VMIN(a, b) __builtin_elementwise_min(a, b)
    typedef float two __attribute__((ext_vector_type(2)));
    typedef float PAIRS __attribute__((ext_vector_type(32)));
    #define PAIR_UP(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, \
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    #define ADD_PAIR(at, pairs, l) do { two* at_ = (two*)(at); *at_ += ((const two*)&pairs)[l]; } while (0)
#endif
#if defined(__AVX512F__) && !defined(__CUDA_ARCH__)
    // The pair of floats in each row, in two vectors.
    typedef float vector512 __attribute__((vector_size(64)));
    typedef int indices512 __attribute__((vector_size(64)));
    #define GATHER_HALF(from, row) \\
        (vf)__builtin_ia32_gathersiv16sf((vector512){}, from, (indices512)(row), (unsigned short)-1, 8)
    #define GATHER(into, from, row) do { \\
        into[0] = GATHER_HALF(from, row); into[1] = GATHER_HALF((from) + 1, row); } while (0)
#else
    #define GATHER(into, from, row) for (int l_ = 0; l_ < LANES; ++l_) { \\
        const float* pair_ = (from) + 2 * (size_t)LANE(row, l_); \\
        LANE(into[0], l_) = pair_[0]; LANE(into[1], l_) = pair_[1]; }
#endif
    // Two neighbors in each of `count` rows of `stride` floats; three in rows of three. The other lanes are zero.
    #define LOAD2(a, b, from, stride, count) do { \\
        const float* from_ = from; a = 0.0f; b = 0.0f; \\
        for (int l_ = 0; l_ < count; ++l_) { \\
            LANE(a, l_) = from_[(size_t)l_ * (stride)]; LANE(b, l_) = from_[(size_t)l_ * (stride) + 1]; } } while (0)
    #define LOAD3(a, b, c, from, count) do { \\
        const float* from_ = from; a = 0.0f; b = 0.0f; c = 0.0f; \\
        for (int l_ = 0; l_ < count; ++l_) { \\
            LANE(a, l_) = from_[3 * l_]; LANE(b, l_) = from_[3 * l_ + 1]; LANE(c, l_) = from_[3 * l_ + 2]; } } while (0)
"""
