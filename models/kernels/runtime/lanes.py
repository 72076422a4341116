"""C++ for the bodies of kernels that handle several points at once: a vector register on a CPU, one point on a GPU.

Warp compiles a body as it stands, for the machine's own instruction set on a CPU, where whole registers of points make
a kernel several times faster than one point after another. The names below mean the same on both: `vf`, `vi` and `vu`
are floats, ints and unsigned ints of `LANES` points.
"""

from __future__ import annotations

from collections.abc import Iterable

LANES = 16  # points of a block on a CPU


def _shuffle(a: str, b: str, order: Iterable[int]) -> str:
    """The lanes of two registers in another order; the second's are numbered from `LANES` on."""
    return f"__builtin_shufflevector({a}, {b}, {', '.join(map(str, order))})"


def _column(c: int) -> str:
    """Column c of 16 rows of three that lie in the registers x_, y_ and z_."""
    places = [3 * lane + c for lane in range(LANES)]
    early = _shuffle("x_", "y_", [min(place, 31) for place in places])
    return _shuffle(early, "z_", [lane if place < 32 else place - 16 for lane, place in enumerate(places)])


def _row_part(part: int) -> str:
    """Sixteen of the 48 numbers of 16 rows of three, from the columns a_, b_ and c_."""
    places = [divmod(LANES * part + lane, 3) for lane in range(LANES)]
    early = _shuffle("a_", "b_", [row + LANES * (column == 1) for row, column in places])
    return _shuffle(early, "c_", [row + LANES if column == 2 else i for i, (row, column) in enumerate(places)])


# Whole blocks as registers that are then put in order, the last block of an array number by number.
_ROWS = f"""
    // Two neighbors in each of `count` rows of `stride` floats; three in rows of three; one after the other. The other
    // lanes are zero.
#if defined(__CUDA_ARCH__)
    #define LOAD2(a, b, from, stride, count) do {{ const float* from_ = from; a = from_[0]; b = from_[1]; }} while (0)
    #define STORE2(to, stride, count, a, b) do {{ float* to_ = to; to_[0] = a; to_[1] = b; }} while (0)
    #define LOAD3(a, b, c, from, count) do {{ \\
        const float* from_ = from; a = from_[0]; b = from_[1]; c = from_[2]; }} while (0)
    #define STORE3(to, count, a, b, c) do {{ float* to_ = to; to_[0] = a; to_[1] = b; to_[2] = c; }} while (0)
    #define LOAD_BLOCK(v, from, count) v = *(from)
    #define STORE_BLOCK(to, v, count) *(to) = v
#else
    typedef float block_of_floats __attribute__((ext_vector_type(16), aligned(4)));
    typedef float pair_of_floats __attribute__((ext_vector_type(2), aligned(4)));
    #define LOAD2(a, b, from, stride, count) do {{ \\
        const float* from_ = from; PAIRS pairs_ = 0.0f; \\
        for (int l_ = 0; l_ < count; ++l_) \\
            ((two*)&pairs_)[l_] = *(const pair_of_floats*)(from_ + (size_t)l_ * (stride)); \\
        a = __builtin_shufflevector(pairs_, pairs_, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); \\
        b = __builtin_shufflevector(pairs_, pairs_, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); \\
        }} while (0)
    #define STORE2(to, stride, count, a, b) do {{ \\
        float* to_ = to; const PAIRS pairs_ = PAIR_UP(a, b); \\
        for (int l_ = 0; l_ < count; ++l_) \\
            *(pair_of_floats*)(to_ + (size_t)l_ * (stride)) = ((const two*)&pairs_)[l_]; }} while (0)
    #define LOAD3(a, b, c, from, count) do {{ \\
        const float* from_ = from; \\
        if (count == LANES) {{ \\
            const vf x_ = *(const block_of_floats*)from_, y_ = *(const block_of_floats*)(from_ + 16); \\
            const vf z_ = *(const block_of_floats*)(from_ + 32); \\
            a = {_column(0)}; \\
            b = {_column(1)}; \\
            c = {_column(2)}; \\
        }} else {{ \\
            a = 0.0f; b = 0.0f; c = 0.0f; \\
            for (int l_ = 0; l_ < count; ++l_) {{ \\
                a[l_] = from_[3 * l_]; b[l_] = from_[3 * l_ + 1]; c[l_] = from_[3 * l_ + 2]; }} }} }} while (0)
    #define STORE3(to, count, a, b, c) do {{ \\
        float* to_ = to; const vf a_ = a, b_ = b, c_ = c; \\
        if (count == LANES) {{ \\
            *(block_of_floats*)to_ = {_row_part(0)}; \\
            *(block_of_floats*)(to_ + 16) = {_row_part(1)}; \\
            *(block_of_floats*)(to_ + 32) = {_row_part(2)}; \\
        }} else for (int l_ = 0; l_ < count; ++l_) {{ \\
            to_[3 * l_] = a_[l_]; to_[3 * l_ + 1] = b_[l_]; to_[3 * l_ + 2] = c_[l_]; }} }} while (0)
    #define LOAD_BLOCK(v, from, count) do {{ \\
        const float* from_ = from; \\
        if (count == LANES) v = *(const block_of_floats*)from_; \\
        else {{ v = 0.0f; for (int l_ = 0; l_ < count; ++l_) v[l_] = from_[l_]; }} }} while (0)
    #define STORE_BLOCK(to, v, count) do {{ \\
        float* to_ = to; const vf v_ = v; \\
        if (count == LANES) *(block_of_floats*)to_ = v_; \\
        else for (int l_ = 0; l_ < count; ++l_) to_[l_] = v_[l_]; }} while (0)
#endif
"""

TYPES = (
    """
#undef LANE
#undef TO_INT
#undef TO_UNSIGNED
#undef TO_FLOAT
#undef VMAX
#undef VMIN
#undef GATHER_PAIRS
#undef PAIRS_AT
#undef GATHER_HALVES
#undef HALF_TO_FLOAT
#undef NO_LOOP_VECTORS
#undef ABS
#undef EXP2
#undef PAIRS
#undef PAIR_UP
#undef ADD_PAIR
#undef ROW
#undef LOAD2
#undef LOAD3
#undef STORE2
#undef STORE3
#undef LOAD_BLOCK
#undef STORE_BLOCK
#undef RELU
#undef SOFTPLUS
#undef LOG_1_PLUS
#undef FMA
#undef SELECT
#undef ANY
#undef FLOOR
#undef CEIL
#undef ROOT
#undef LOG
#undef LOOK_UP_BYTES
#undef STORE_WHERE
#undef BLOCK_OF
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
#if __CUDA_ARCH__ >= 900
    #define ADD_PAIR(at, pairs, l) atomicAdd((float2*)(at), pairs)
#else
    #define ADD_PAIR(at, pairs, l) do { atomicAdd(at, pairs.x); atomicAdd((at) + 1, pairs.y); } while (0)
#endif
    #define NO_LOOP_VECTORS
    #define ABS(v) fabsf(v)
    #define EXP2(v) exp2f(v)
    #define LOG(v) logf(v)
    #define FMA(a, b, c) fmaf(a, b, c)
    #define SELECT(mask, a, b) ((mask) ? (a) : (b))
    #define ANY(mask) (mask)
    #define FLOOR(v) floorf(v)
    #define CEIL(v) ceilf(v)
    #define ROOT(v) sqrtf(v)
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
    #define FMA(a, b, c) __builtin_elementwise_fma((vf)(a), (vf)(b), (vf)(c))  // the compiler makes none by itself
    #define VMIN(a, b) __builtin_elementwise_min(a, b)
    // The points fill the registers: a loop around them is not to be turned into vectors of its own.
    #define NO_LOOP_VECTORS _Pragma("clang loop vectorize(disable) interleave(disable)")
    #define ABS(v) __builtin_elementwise_abs(v)
    #define SELECT(mask, a, b) ((mask) ? (a) : (b))
    #define ANY(mask) (__builtin_reduce_or(mask) != 0)
    #define FLOOR(v) __builtin_elementwise_floor(v)
    #define CEIL(v) __builtin_elementwise_ceil(v)
    #define ROOT(v) __builtin_elementwise_sqrt(v)
    // ln v for normal v > 0: the exponent, and the series of 2 atanh((m - 1) / (m + 1)) for m in [0.7, 1.4]; to 1e-7.
    #define LOG(v) ([](vf v_) { \
        const vi bits_ = (vi)v_ - 0x3f3504f3; \
        const vf m_ = (vf)((bits_ & 0x7fffff) + 0x3f3504f3), q_ = (m_ - 1.0f) / (m_ + 1.0f), s_ = q_ * q_; \
        vf p_ = 1.0f / 9.0f; \
        p_ = FMA(p_, s_, 1.0f / 7.0f); p_ = FMA(p_, s_, 1.0f / 5.0f); \
        p_ = FMA(p_, s_, 1.0f / 3.0f); p_ = FMA(p_, s_, 1.0f); \
        return __builtin_convertvector(bits_ >> 23, vf) * 0.693147181f + 2.0f * q_ * p_; }(v))
    // 2^v for v <= 0: a polynomial for the fraction, the whole part goes into the exponent. Relative error 2e-7 down to
    // 2^-50, where it ends: squares of the result are no denormals yet.
    #define EXP2(v) ([](vf v_) { \
        v_ = __builtin_elementwise_max(v_, (vf)-50.0f); \
        const vi whole_ = __builtin_convertvector(v_ - 0.5f, vi); \
        const vf f_ = v_ - __builtin_convertvector(whole_, vf); \
        vf p_ = 1.5403530e-4f; \
        p_ = FMA(p_, f_, 1.3333558e-3f); p_ = FMA(p_, f_, 9.6181291e-3f); p_ = FMA(p_, f_, 5.5504109e-2f); \
        p_ = FMA(p_, f_, 2.4022651e-1f); p_ = FMA(p_, f_, 6.9314718e-1f); p_ = FMA(p_, f_, 1.0f); \
        return p_ * (vf)((whole_ + 127) << 23); }(v))
    typedef float two __attribute__((ext_vector_type(2)));
    typedef float PAIRS __attribute__((ext_vector_type(32)));
    #define PAIR_UP(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, \
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    #define ADD_PAIR(at, pairs, l) do { two* at_ = (two*)(at); *at_ += ((const two*)&pairs)[l]; } while (0)
#endif
#if defined(__AVX512DQ__) && !defined(__CUDA_ARCH__)
    typedef float vector512 __attribute__((vector_size(64)));
    typedef double doubles512 __attribute__((vector_size(64)));
    typedef int indices512 __attribute__((vector_size(64)));
    // The pair of floats at `from + unit * at`, in two vectors: eight pairs at once, then the firsts and the seconds.
    #define PAIRS_AT(at, half, from, unit) (vector512)__builtin_ia32_gathersiv8df((doubles512){}, from, \\
        __builtin_shufflevector((indices512)(at), (indices512)(at), 8 * half, 8 * half + 1, 8 * half + 2, \\
        8 * half + 3, 8 * half + 4, 8 * half + 5, 8 * half + 6, 8 * half + 7), (unsigned char)-1, 4 * unit)
    #define GATHER_PAIRS(a, b, from, at, unit) do { \\
        const vector512 low_ = PAIRS_AT(at, 0, from, unit), high_ = PAIRS_AT(at, 1, from, unit); \\
        a = (vf)__builtin_shufflevector(low_, high_, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); \\
        b = (vf)__builtin_shufflevector(low_, high_, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); \\
        } while (0)
    // The pair of 16-bit floats in each of the words `at`.
    typedef unsigned short half_words __attribute__((ext_vector_type(16)));
    typedef _Float16 halves __attribute__((ext_vector_type(16)));
    #define HALF_TO_FLOAT(words) __builtin_convertvector((halves)__builtin_convertvector(words, half_words), vf)
    #define GATHER_HALVES(a, b, from, at) do { \\
        const vu words_ = (vu)__builtin_ia32_gathersiv16si((indices512){}, from, (indices512)(at), \\
            (unsigned short)-1, 4); \\
        a = HALF_TO_FLOAT(words_ & 0xffffu); b = HALF_TO_FLOAT(words_ >> 16u); } while (0)
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
    #define GATHER_PAIRS(a, b, from, at, unit) for (int l_ = 0; l_ < LANES; ++l_) { \\
        const float* pair_ = (from) + unit * (size_t)LANE(at, l_); \\
        LANE(a, l_) = pair_[0]; LANE(b, l_) = pair_[1]; }
    #define GATHER_HALVES(a, b, from, at) for (int l_ = 0; l_ < LANES; ++l_) { \\
        const unsigned word_ = (unsigned)(from)[LANE(at, l_)]; \\
        wp::half half_; \\
        half_.u = word_ & 0xffffu; LANE(a, l_) = wp::half_to_float(half_); \\
        half_.u = word_ >> 16u; LANE(b, l_) = wp::half_to_float(half_); }
#endif
    // log(1 + e) for e in [0, 1]: e times a polynomial, to 2e-7 of itself.
    #define LOG_1_PLUS(e) ([](vf e_) { \
        vf p_ = 5.2326690e-3f; \
        p_ = FMA(p_, e_, -2.9505138e-2f); p_ = FMA(p_, e_, 7.8225787e-2f); p_ = FMA(p_, e_, -1.3663232e-1f); \
        p_ = FMA(p_, e_, 1.9106000e-1f); p_ = FMA(p_, e_, -2.4842981e-1f); p_ = FMA(p_, e_, 3.3319097e-1f); \
        p_ = FMA(p_, e_, -4.9999493e-1f); p_ = FMA(p_, e_, 9.9999997e-1f); \
        return p_ * e_; }(e))
    // Of the points of an array, how many there are, which is the block's first, and how many it has.
    #define BLOCK_OF(array) const int count = (array).shape[0]; const size_t start = (size_t)block * LANES; \
        const int end = count - (int)start < (int)LANES ? count - (int)start : (int)LANES
    // max(v, 0), and NaN for NaN, so that a run that diverges is noticed.
    #define RELU(v) SELECT((v) < 0.0f, (vf)0.0f, v)
    // log(1 + exp(beta v)) / beta = max(v, 0) + log(1 + exp(-beta |v|)) / beta
    #define SOFTPLUS(v, beta, inverse_beta) \
        (RELU(v) + (inverse_beta) * LOG_1_PLUS(EXP2(ABS(v) * (-1.44269504f * (beta)))))
"""
    + _ROWS
)
