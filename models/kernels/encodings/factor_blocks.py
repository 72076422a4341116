"""C++ of the factors' kernels for a block of points: `LANES` points at once where they lie, then point by point.

Of a point a row of numbers is read at each corner, so that on a CPU a register holds the numbers of one row, not the
points: 16 of them, 4 or 1, whatever divides a row. A GPU's thread has a point, and takes the numbers one by one.

Of sparse voxels, `links` says which corners have a row, and which one: for each 32 corners, one after the other, a word
of bits, and the rows that came before. A corner without a row counts as a row of zeros; it has no gradient.
"""

from __future__ import annotations

import warp as wp

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.native import Floats, Ints, Rows

# The row of a corner by its number, in a grid of which only some have one: below zero without one.
LINKED = """
    #undef COUNT_BITS
#if defined(__CUDA_ARCH__)
    #define COUNT_BITS(word) __popc(word)
#else
    #define COUNT_BITS(word) (unsigned)__builtin_popcount(word)
#endif
    auto linked = [&](unsigned corner) {
        const int* word = links.data + 2 * (size_t)(corner >> 5);
        const unsigned bits = (unsigned)word[0], bit = 1u << (corner & 31u);
        return bits & bit ? word[1] + (int)COUNT_BITS(bits & (bit - 1u)) : -1;
    };
"""

# Where the points of a block lie: cell and fraction on each axis, how fast the fraction changes, and along a direction.
_PLACE = (
    TYPES
    + LINKED
    + """
    #undef V_FMA
    #undef FOR_WIDTH
#if defined(__CUDA_ARCH__)
    #define V_FMA(a, b, c) fmaf(a, b, c)
    #define FOR_WIDTH(work, numbers) work(0.0f)
#else
    typedef float wide __attribute__((ext_vector_type(16)));
    typedef float quad __attribute__((ext_vector_type(4)));
    #define V_FMA(a, b, c) __builtin_elementwise_fma((V)(a), (V)(b), (V)(c))
    #define FOR_WIDTH(work, numbers) do { \\
        if ((numbers) % 16 == 0) work((wide)0.0f); \\
        else if ((numbers) % 4 == 0) work((quad)0.0f); \\
        else work(0.0f); } while (0)
#endif
    #undef NUMBER
    #undef ROW_AT
    #undef FETCH_ROWS
    #undef ADD_ROWS
    #undef INTERPOLATE
    #define NUMBER(v, l) ((const float*)&(v))[l]
    BLOCK_OF(points);
    if (end <= 0) return;
    vf at[3], to[3], part[3], slope[3], turn[3];
    vu cell[3];
    const vf zero = 0.0f, one = 1.0f;
    const bool turns = along.shape[0] > 0;
    LOAD3(at[0], at[1], at[2], points.data + 3 * start, end);
    to[0] = to[1] = to[2] = zero;
    if (turns) LOAD3(to[0], to[1], to[2], along.data + 3 * start, end);
    for (int axis = 0; axis < 3; ++axis) {
        const int n = resolution.data[axis];
        const float low = box.data[axis], scale = (float)n / (box.data[3 + axis] - low);
        const vf most = (float)n, u = (at[axis] - low) * scale;
        const vi within = (u >= zero) & (u <= most), last = n - 1;  // beyond it features are constant
        const vf cut = VMIN(VMAX(u, zero), most);
        const vi whole = VMIN(TO_INT(cut), last);
        cell[axis] = TO_UNSIGNED(whole);
        part[axis] = cut - TO_FLOAT(whole);
        slope[axis] = SELECT(within, (vf)scale, zero);
        turn[axis] = slope[axis] * to[axis];
    }
    const int numbers = table.shape[1];
    vu rows_before = 0u;
    if (base.shape[0] > 0) for (int l = 0; l < end; ++l) ((unsigned*)&rows_before)[l] = (unsigned)base.data[start + l];
    // The corners of the points' cells in one factor: rows, weights, and the weights' derivatives in the direction.
    struct Corners { int count; vu row[8]; vf w[8], d[8], there[8]; };
    const bool sparse = links.shape[0] > 0;
    auto link = [&](Corners& of, int i) {
        of.there[i] = zero;
        for (int l = 0; l < end; ++l) {
            unsigned& row = ((unsigned*)&of.row[i])[l];
            const int found = linked(row);
            LANE(of.there[i], l) = found < 0 ? 0.0f : 1.0f;
            row = found < 0 ? 0u : (unsigned)found;
        }
        of.w[i] *= of.there[i];
        if (turns) of.d[i] *= of.there[i];
    };
    auto corners_of = [&](int factor, Corners& of) {
        const int* layout = factors.data + 5 * factor;
        unsigned step = 1;
        of.count = 1; of.row[0] = rows_before + (unsigned)layout[4]; of.w[0] = one; of.d[0] = zero;
        for (int place = 0; place < layout[0]; ++place) {
            const int axis = layout[1 + place];
            const vf high = part[axis], low = one - high, t = turn[axis];
            for (int i = 0; i < of.count; ++i) {
                const int j = of.count + i;
                of.row[i] += step * cell[axis];
                of.row[j] = of.row[i] + step;
                if (turns) {
                    of.d[j] = of.d[i] * high + of.w[i] * t;
                    of.d[i] = of.d[i] * low - of.w[i] * t;
                }
                of.w[j] = of.w[i] * high;
                of.w[i] *= low;
            }
            of.count *= 2;
            step *= (unsigned)resolution.data[axis] + 1u;
        }
        if (sparse) for (int i = 0; i < of.count; ++i) link(of, i);
    };
    // Rows of voxels lie far apart: they come into the cache together. Lines and planes are there.
#if defined(__CUDA_ARCH__)
    #define FETCH_ROWS(of)
#else
    #define FETCH_ROWS(of) if ((of).count == 8) \\
        for (int i_ = 0; i_ < 8; ++i_) for (int l_ = 0; l_ < end; ++l_) \\
            __builtin_prefetch(table.data + ROW_AT(of, i_, l_), 0, 3)
#endif
    #define ROW_AT(of, i, l) ((size_t)((const unsigned*)&(of).row[i])[l] * numbers)
    // Numbers from `first` on of a factor at point l: its rows times `by`, a weight each, in loops of known length.
    #define ADD_ROWS(into, known) for (int i_ = 0; i_ < known; ++i_) \\
        into = V_FMA(NUMBER(by[i_], l), (V)*(const loose*)(from + ROW_AT(of, i_, l)), into)
    #define INTERPOLATE [&](const Corners& of, const vf* by, int l, int first) -> V { \\
        const float* from = table.data + first; V sum_ = nothing; \\
        if (of.count == 2) { ADD_ROWS(sum_, 2); } \\
        else if (of.count == 4) { ADD_ROWS(sum_, 4); } \\
        else { ADD_ROWS(sum_, 8); } \\
        return sum_; }
"""
)


@wp.func_native(
    _PLACE
    + """
    const int width = out.shape[1];
    const float* lead_from = turns ? along.data : points.data;
    for (int l = 0; l < end; ++l)
        for (int c = 0; c < lead; ++c) out.data[(start + l) * width + c] = lead_from[3 * (start + l) + c];
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        const auto interpolate = INTERPOLATE;
        const int wide_by = sizeof(V) / 4;
        Corners corners[3];
        V totals[LANES];
        if (summed) for (int l = 0; l < LANES; ++l) totals[l] = nothing;
        for (int term = 0; term < terms; ++term) {
            for (int f = 0; f < together; ++f) corners_of(term * together + f, corners[f]);
            FETCH_ROWS(corners[0]);
            for (int l = 0; l < end; ++l)
                for (int c = 0; c < numbers; c += wide_by) {
                    V product = nothing + 1.0f, turned = nothing;
                    for (int f = 0; f < together; ++f) {
                        const V v = interpolate(corners[f], corners[f].w, l, c);
                        if (turns) turned = turned * v + product * interpolate(corners[f], corners[f].d, l, c);
                        product *= v;
                    }
                    const V result = turns ? turned : product;
                    if (summed) totals[l] += result;
                    else *(loose*)(out.data + (start + l) * width + lead + term * numbers + c) = result;
                }
        }
        if (summed)
            for (int l = 0; l < end; ++l) {
                float sum = 0.0f;
                for (int i = 0; i < wide_by; ++i) sum += NUMBER(totals[l], i);
                out.data[start + l] = sum;
            }
    };
    FOR_WIDTH(work, numbers);
"""
)
def look_up_block(
    block: int, points: Rows, base: Ints, table: Rows, factors: Ints, links: Ints, resolution: Ints, box: Floats,
    terms: int, together: int, lead: int, summed: int, along: Rows, out: Rows,
):
    """out [M, W]: the products, or with `along` [M, 3] their derivatives in that direction."""


@wp.func_native(
    _PLACE
    + """
    const int width = weight.shape[1];
    for (int l = 0; l < end; ++l)
        for (int axis = 0; axis < 3; ++axis)
            out.data[3 * (start + l) + axis] = axis < lead ? weight.data[(start + l) * width + axis] : 0.0f;
    // The weights' derivatives on each axis, and of these the ones in the direction.
    struct Slopes { vf e[3][8], ed[3][8]; };
    auto slopes_of = [&](int factor, const Corners& corners, Slopes& of) {
        const int* layout = factors.data + 5 * factor;
        vf w[8], d[8];
        w[0] = one; d[0] = zero;
        for (int axis = 0; axis < 3; ++axis) of.e[axis][0] = of.ed[axis][0] = zero;
        for (int place = 0, count = 1; place < layout[0]; ++place, count *= 2) {
            const int own = layout[1 + place];
            const vf high = part[own], low = one - high, t = turn[own];
            for (int i = 0; i < count; ++i) {
                const int j = count + i;
                for (int axis = 0; axis < 3; ++axis) {
                    const vf s = axis == own ? slope[own] : zero, e = of.e[axis][i], ed = of.ed[axis][i];
                    of.e[axis][j] = e * high + w[i] * s;
                    of.ed[axis][j] = ed * high + e * t + d[i] * s;
                    of.e[axis][i] = e * low - w[i] * s;
                    of.ed[axis][i] = ed * low - e * t - d[i] * s;
                }
                d[j] = d[i] * high + w[i] * t;
                d[i] = d[i] * low - w[i] * t;
                w[j] = w[i] * high;
                w[i] *= low;
            }
        }
        if (sparse)
            for (int axis = 0; axis < 3; ++axis)
                for (int i = 0; i < corners.count; ++i) {
                    of.e[axis][i] *= corners.there[i];
                    of.ed[axis][i] *= corners.there[i];
                }
    };
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        const auto interpolate = INTERPOLATE;
        const int wide_by = sizeof(V) / 4;
        Corners corners[3];
        Slopes slopes[3];
        for (int term = 0; term < terms; ++term) {
            for (int f = 0; f < together; ++f) {
                corners_of(term * together + f, corners[f]);
                slopes_of(term * together + f, corners[f], slopes[f]);
            }
            for (int l = 0; l < end; ++l) {
                const float* by = weight.data + (start + l) * width;
                const float* by_second = second.data + (start + l) * width;
                V sums[3] = {nothing, nothing, nothing};
                for (int c = 0; c < numbers; c += wide_by) {
                    // Of the product so far: value, derivative in the direction, on each axis, and the mixed ones.
                    V p = nothing + 1.0f, pd = nothing, pa[3], pad[3];
                    for (int axis = 0; axis < 3; ++axis) pa[axis] = pad[axis] = nothing;
                    for (int f = 0; f < together; ++f) {
                        const V v = interpolate(corners[f], corners[f].w, l, c);
                        const V d = turns ? interpolate(corners[f], corners[f].d, l, c) : nothing;
                        for (int axis = 0; axis < 3; ++axis) {
                            const V a = interpolate(corners[f], slopes[f].e[axis], l, c);
                            if (turns) {
                                const V ad = interpolate(corners[f], slopes[f].ed[axis], l, c);
                                pad[axis] = pad[axis] * v + pa[axis] * d + pd * a + p * ad;
                            }
                            pa[axis] = pa[axis] * v + p * a;
                        }
                        pd = pd * v + p * d;
                        p *= v;
                    }
                    const int from = lead + term * numbers + c;
                    const V g = summed ? nothing + by[0] : (V)*(const loose*)(by + from);
                    for (int axis = 0; axis < 3; ++axis) sums[axis] = V_FMA(g, pa[axis], sums[axis]);
                    if (!turns) continue;
                    const V h = summed ? nothing + by_second[0] : (V)*(const loose*)(by_second + from);
                    for (int axis = 0; axis < 3; ++axis) sums[axis] = V_FMA(h, pad[axis], sums[axis]);
                }
                for (int axis = 0; axis < 3; ++axis) {
                    float sum = 0.0f;
                    for (int i = 0; i < wide_by; ++i) sum += NUMBER(sums[axis], i);
                    out.data[3 * (start + l) + axis] += sum;
                }
            }
        }
    };
    FOR_WIDTH(work, numbers);
"""
)
def pull_block(
    block: int, points: Rows, base: Ints, table: Rows, factors: Ints, links: Ints, resolution: Ints, box: Floats,
    terms: int, together: int, lead: int, summed: int, weight: Rows, second: Rows, along: Rows, out: Rows,
):
    """out [M, 3]: gradient in the points of sum(weight * features), weight [M, W].

    With `second` [M, W] and `along` [M, 3] also of sum(second * derivative of the features in direction `along`).
    """


@wp.func_native(
    _PLACE
    + """
    const int width = grad.shape[1];
    #undef ADD_TO
    #undef SCATTER
#if defined(__CUDA_ARCH__)
    #define ADD_TO(at, add) do { if ((add) != 0.0f) atomicAdd(at, add); } while (0)
#else
    #define ADD_TO(at, add) *(loose*)(at) += add
#endif
    #define SCATTER(known) for (int i = 0; i < known; ++i) { \\
        V add = plain * NUMBER(of.w[i], l); \\
        if (turns) add = V_FMA(NUMBER(of.d[i], l), by_slope, add); \\
        ADD_TO(rows.data + ROW_AT(of, i, l) + first_number, add); }
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        const auto interpolate = INTERPOLATE;
        Corners corners[3];
        for (int f = 0; f < together; ++f) corners_of(term * together + f, corners[f]);
        for (int l = 0; l < end; ++l) {
            const int from = lead + term * numbers + first_number;
            const float* by = grad.data + (start + l) * width;
            const V g = summed ? nothing + by[0] : (V)*(const loose*)(by + from);
            V h = nothing, v[3], d[3];
            if (turns) {
                const float* by_second = weight.data + (start + l) * width;
                h = summed ? nothing + by_second[0] : (V)*(const loose*)(by_second + from);
            }
#if defined(__CUDA_ARCH__)
            if (g == 0.0f && h == 0.0f) continue;  // threads would queue for nothing
#endif
            for (int f = 0; f < together; ++f) {
                v[f] = interpolate(corners[f], corners[f].w, l, first_number);
                d[f] = turns ? interpolate(corners[f], corners[f].d, l, first_number) : nothing;
            }
            for (int f = 0; f < together; ++f) {
                V others = nothing + 1.0f, turned = nothing;
                for (int k = 0; k < together; ++k) if (k != f) {
                    turned = turned * v[k] + others * d[k];
                    others *= v[k];
                }
                const V plain = g * others + h * turned, by_slope = h * others;
                const Corners& of = corners[f];
                if (of.count == 2) { SCATTER(2); } else if (of.count == 4) { SCATTER(4); } else { SCATTER(8); }
            }
        }
    };
    FOR_WIDTH(work, numbers);
"""
)
def scatter_block(
    block: int, term: int, first_number: int, points: Rows, base: Ints, table: Rows, factors: Ints, links: Ints,
    resolution: Ints, box: Floats, together: int, lead: int, summed: int, grad: Rows, weight: Rows, along: Rows,
    rows: Rows,
):
    """rows [N, F] += gradient of sum(grad * features), and with `along` of sum(weight * derivative in that direction).

    Of one term, and of its numbers those of one register, from `first_number` on.
    """
