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
#undef NO_LOOP_VECTORS
#undef ABS
#undef EXP2
#undef PAIRS
#undef PAIR_UP
#undef ADD_PAIR
#undef ROW
#undef LOAD2
#undef LOAD3
#undef SOFTPLUS
#undef SELECT
#undef ANY
#undef FLOOR
#undef CEIL
#undef LOG
#undef LOOK_UP_BYTES
#undef STORE_WHERE
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
    #define NO_LOOP_VECTORS
    #define ABS(v) fabsf(v)
    #define EXP2(v) exp2f(v)
    #define LOG(v) logf(v)
    #define SELECT(mask, a, b) ((mask) ? (a) : (b))
    #define ANY(mask) (mask)
    #define FLOOR(v) floorf(v)
    #define CEIL(v) ceilf(v)
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
    // The points fill the registers: a loop around them is not to be turned into vectors of its own.
    #define NO_LOOP_VECTORS _Pragma("clang loop vectorize(disable) interleave(disable)")
    #define ABS(v) __builtin_elementwise_abs(v)
    #define SELECT(mask, a, b) ((mask) ? (a) : (b))
    #define ANY(mask) (__builtin_reduce_or(mask) != 0)
    #define FLOOR(v) __builtin_elementwise_floor(v)
    #define CEIL(v) __builtin_elementwise_ceil(v)
    // ln v for normal v > 0: the exponent, and the series of 2 atanh((m - 1) / (m + 1)) for m in [0.7, 1.4]; to 1e-7.
    #define LOG(v) ([](vf v_) { \
        const vi bits_ = (vi)v_ - 0x3f3504f3; \
        const vf m_ = (vf)((bits_ & 0x7fffff) + 0x3f3504f3), q_ = (m_ - 1.0f) / (m_ + 1.0f), s_ = q_ * q_; \
        vf p_ = 1.0f / 9.0f; \
        p_ = p_ * s_ + 1.0f / 7.0f; p_ = p_ * s_ + 1.0f / 5.0f; p_ = p_ * s_ + 1.0f / 3.0f; p_ = p_ * s_ + 1.0f; \
        return __builtin_convertvector(bits_ >> 23, vf) * 0.693147181f + 2.0f * q_ * p_; }(v))
    // 2^v for v <= 0: a polynomial for the fraction, the whole part goes into the exponent. Relative error 2e-7 down to
    // 2^-50, where it ends: squares of the result are no denormals yet.
    #define EXP2(v) ([](vf v_) { \
        v_ = __builtin_elementwise_max(v_, (vf)-50.0f); \
        const vi whole_ = __builtin_convertvector(v_ - 0.5f, vi); \
        const vf f_ = v_ - __builtin_convertvector(whole_, vf); \
        vf p_ = 1.5403530e-4f; \
        p_ = p_ * f_ + 1.3333558e-3f; p_ = p_ * f_ + 9.6181291e-3f; p_ = p_ * f_ + 5.5504109e-2f; \
        p_ = p_ * f_ + 2.4022651e-1f; p_ = p_ * f_ + 6.9314718e-1f; p_ = p_ * f_ + 1.0f; \
        return p_ * (vf)((whole_ + 127) << 23); }(v))
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
    // Four bytes at once, not beyond the last of `count`, and of them the one that is wanted.
    #define LOOK_UP_BYTES(into, from, at, count) do { \\
        if ((count) < 4) { \\
            into = 0; for (int l_ = 0; l_ < LANES; ++l_) LANE(into, l_) = (from)[LANE(at, l_)]; break; } \\
        const vi at_ = VMIN(at, (vi)((count) - 4)); \\
        const vi four_ = (vi)__builtin_ia32_gathersiv16si((indices512){}, from, (indices512)at_, \\
            (unsigned short)-1, 1); \\
        into = (vi)((vu)four_ >> (vu)((at - at_) * 8)) & 255; } while (0)
    // Four bytes each, of floats or of ints.
    #define STORE_WHERE(mask, to, at, v) __builtin_ia32_scattersiv16si(to, \\
        (unsigned short)__builtin_ia32_cvtd2mask512((indices512)(mask)), (indices512)(at), (indices512)(v), 4)
#else
    #define STORE_WHERE(mask, to, at, v) do { const vi where_ = at; \\
        for (int l_ = 0; l_ < LANES; ++l_) if (LANE(mask, l_)) (to)[LANE(where_, l_)] = LANE(v, l_); } while (0)
    #define LOOK_UP_BYTES(into, from, at, count) do { into = 0; \\
        for (int l_ = 0; l_ < LANES; ++l_) LANE(into, l_) = (from)[LANE(at, l_)]; } while (0)
    #define GATHER(into, from, row) for (int l_ = 0; l_ < LANES; ++l_) { \\
        const float* pair_ = (from) + 2 * (size_t)LANE(row, l_); \\
        LANE(into[0], l_) = pair_[0]; LANE(into[1], l_) = pair_[1]; }
#endif
    // log(1 + exp(beta v)) / beta = max(v, 0) + log(1 + e) / beta with e = exp(-beta |v|), the logarithm by the series
    // of 2 atanh(e / (2 + e)).
    #define SOFTPLUS(v, beta) ([](vf v_, float beta_) { \
        const vf e_ = EXP2(ABS(v_) * (-1.44269504f * beta_)); \
        const vf q_ = e_ / (e_ + 2.0f), s_ = q_ * q_; \
        vf p_ = 1.0f / 13.0f; \
        p_ = p_ * s_ + 1.0f / 11.0f; p_ = p_ * s_ + 1.0f / 9.0f; p_ = p_ * s_ + 1.0f / 7.0f; \
        p_ = p_ * s_ + 1.0f / 5.0f; p_ = p_ * s_ + 1.0f / 3.0f; p_ = p_ * s_ + 1.0f; \
        return VMAX(v_, (vf)0.0f) + 2.0f * q_ * p_ / beta_; }(v, beta))
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
