"""C++ of the octree's kernels: `LANES` points go down together, from the coarsest voxels to their leaves.

At each size the rows at the corners of the points' voxels are fetched, then added up point by point. A CPU's register
holds 16 numbers of a row, 8, 4 or 1, whatever divides it; a GPU's thread has a point, and takes them one by one.
"""

from __future__ import annotations

import warp as wp

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.native import Ints, Rows

# How points go down the tree, and what the weights of their corners are.
_WALK = (
    TYPES
    + """
    #undef FOR_WIDTH
    #undef FETCH
#if defined(__CUDA_ARCH__)
    #define FETCH(at)
    #define FOR_WIDTH(work, numbers) work(0.0f)
#else
    #define FETCH(at) __builtin_prefetch(at, 0, 3)
    typedef float wide __attribute__((ext_vector_type(16)));
    typedef float half_wide __attribute__((ext_vector_type(8)));
    typedef float quad __attribute__((ext_vector_type(4)));
    #define FOR_WIDTH(work, numbers) do { \\
        if ((numbers) % 16 == 0) work((wide)0.0f); \\
        else if ((numbers) % 8 == 0) work((half_wide)0.0f); \\
        else if ((numbers) % 4 == 0) work((quad)0.0f); \\
        else work(0.0f); } while (0)
#endif
    BLOCK_OF(points);
    if (end <= 0) return;
    const int numbers = table.shape[1];
    const bool turns = along.shape[0] > 0;
    // Where a point lies in its voxel: the fractions there, how fast they change, and how fast in the direction.
    struct Place { float part[3], slope[3], turn[3]; };
    // The weights of the eight corners, in the order of the bits x, y, z.
    auto weights_of = [](const Place& at, float* w) {
        const float x = at.part[0], y = at.part[1], z = at.part[2];
        const float yz[4] = {(1.0f - y) * (1.0f - z), (1.0f - y) * z, y * (1.0f - z), y * z};
        for (int c = 0; c < 4; ++c) { w[c] = (1.0f - x) * yz[c]; w[4 + c] = x * yz[c]; }
    };
    // Their derivatives in the direction.
    auto turned_weights_of = [](const Place& at, float* d) {
        const float x = at.part[0], y = at.part[1], z = at.part[2];
        for (int c = 0; c < 8; ++c) {
            const float wx = c & 4 ? x : 1.0f - x, wy = c & 2 ? y : 1.0f - y, wz = c & 1 ? z : 1.0f - z;
            const float tx = c & 4 ? at.turn[0] : -at.turn[0], ty = c & 2 ? at.turn[1] : -at.turn[1];
            const float tz = c & 1 ? at.turn[2] : -at.turn[2];
            d[c] = tx * wy * wz + wx * ty * wz + wx * wy * tz;
        }
    };
    // `visit` is called with a point, the rows at the corners of its voxel and its place there, at each size.
    auto walk = [&](auto visit) {
        float u[LANES][3], slope[LANES][3];
        Place at[LANES];
        int live[LANES], cell[LANES], first[LANES], left = end;
        for (int l = 0; l < end; ++l) {
            live[l] = l;
            for (int axis = 0; axis < 3; ++axis) {
                const float v = points.data[3 * (start + l) + axis] * 0.5f + 0.5f;
                const bool within = v >= 0.0f && v <= 1.0f;  // beyond it features are constant
                u[l][axis] = within ? v : v > 0.0f ? 1.0f : 0.0f;
                slope[l][axis] = within ? 0.5f : 0.0f;
            }
        }
        for (int n = side; left > 0; n *= 2) {
            for (int i = 0; i < left; ++i) {
                const int l = live[i];
                int whole[3];
                for (int axis = 0; axis < 3; ++axis) {
                    const float scaled = u[l][axis] * (float)n;  // times two is exact: a child lies within its parent
                    whole[axis] = (int)scaled < n ? (int)scaled : n - 1;
                    at[l].part[axis] = scaled - (float)whole[axis];
                    at[l].slope[axis] = slope[l][axis] * (float)n;
                    at[l].turn[axis] = turns ? at[l].slope[axis] * along.data[3 * (start + l) + axis] : 0.0f;
                }
                cell[l] = n == side ? (whole[0] * n + whole[1]) * n + whole[2]
                    : first[l] + 4 * (whole[0] & 1) + 2 * (whole[1] & 1) + (whole[2] & 1);
                FETCH(corners.data + 8 * (size_t)cell[l]);
                FETCH(children.data + cell[l]);
            }
#if !defined(__CUDA_ARCH__)
            for (int i = 0; i < left; ++i)
                for (int c = 0; c < 8; ++c) {
                    const int row = corners.data[8 * (size_t)cell[live[i]] + c];
                    FETCH(table.data + (size_t)(row < 0 ? 0 : row) * numbers);
                }
#endif
            for (int i = 0; i < left; ++i) visit(live[i], corners.data + 8 * (size_t)cell[live[i]], at[live[i]]);
            int deeper = 0;
            for (int i = 0; i < left; ++i) {
                const int l = live[i], child = children.data[cell[l]];
                if (child >= 0) { first[l] = child; live[deeper++] = l; }
            }
            left = deeper;
        }
    };
"""
)


@wp.func_native(
    _WALK
    + """
    const int width = out.shape[1];
    const float* lead_from = turns ? along.data : points.data;
    for (int l = 0; l < end; ++l)
        for (int c = 0; c < width; ++c)
            out.data[(start + l) * width + c] = c < lead ? lead_from[3 * (start + l) + c] : 0.0f;
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        const int wide_by = sizeof(V) / 4;
        walk([&](int l, const int* rows, const Place& at) {
            float w[8];
            if (turns) turned_weights_of(at, w); else weights_of(at, w);
            const float* from[8];
            for (int c = 0; c < 8; ++c) {
                from[c] = table.data + (size_t)(rows[c] < 0 ? 0 : rows[c]) * numbers;
                w[c] = rows[c] < 0 ? 0.0f : w[c];
            }
            float* to = out.data + (start + l) * width + lead;
            for (int k = 0; k < numbers; k += wide_by) {
                V sum = *(const loose*)(to + k);
                for (int c = 0; c < 8; ++c) sum += w[c] * (V)*(const loose*)(from[c] + k);
                *(loose*)(to + k) = sum;
            }
        });
    };
    FOR_WIDTH(work, numbers);
"""
)
def look_up_block(
    block: int, points: Rows, table: Rows, children: Ints, corners: Ints, side: int, lead: int, along: Rows, out: Rows
):
    """out [M, lead + F]: the features, or with `along` [M, 3] their derivatives in that direction."""


@wp.func_native(
    _WALK
    + """
    const int width = weight.shape[1];
    for (int l = 0; l < end; ++l)
        for (int axis = 0; axis < 3; ++axis)
            out.data[3 * (start + l) + axis] = axis < lead ? weight.data[(start + l) * width + axis] : 0.0f;
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        const int wide_by = sizeof(V) / 4;
        // The product of each corner's row with the weights of the features.
        auto products = [&](const int* rows, const float* by, float* found) {
            for (int c = 0; c < 8; ++c) {
                const float* from = table.data + (size_t)(rows[c] < 0 ? 0 : rows[c]) * numbers;
                V sums = nothing;
                for (int k = 0; k < numbers; k += wide_by)
                    sums += (V)*(const loose*)(from + k) * (V)*(const loose*)(by + k);
                float sum = 0.0f;
                for (int i = 0; i < wide_by; ++i) sum += ((const float*)&sums)[i];
                found[c] = rows[c] < 0 ? 0.0f : sum;
            }
        };
        walk([&](int l, const int* rows, const Place& at) {
            const float x = at.part[0], y = at.part[1], z = at.part[2];
            float g[8], to[3];
            products(rows, weight.data + (start + l) * width + lead, g);
            // Of the interpolation of eight numbers: differences on one axis, interpolated on the other two.
            auto on_x = [&](const float* v) {
                const float a = v[4] - v[0], b = v[5] - v[1], c = v[6] - v[2], d = v[7] - v[3];
                const float low = a + z * (b - a), high = c + z * (d - c);
                return low + y * (high - low);
            };
            auto on_y = [&](const float* v) {
                const float a = v[2] - v[0], b = v[3] - v[1], c = v[6] - v[4], d = v[7] - v[5];
                const float low = a + z * (b - a), high = c + z * (d - c);
                return low + x * (high - low);
            };
            auto on_z = [&](const float* v) {
                const float a = v[1] - v[0], b = v[3] - v[2], c = v[5] - v[4], d = v[7] - v[6];
                const float low = a + y * (b - a), high = c + y * (d - c);
                return low + x * (high - low);
            };
            to[0] = on_x(g); to[1] = on_y(g); to[2] = on_z(g);
            if (turns) {
                float h[8];
                products(rows, second.data + (start + l) * width + lead, h);
                auto mixed = [&](float a, float b, float part) { return a + part * (b - a); };
                const float xy = mixed(h[6] - h[4] - h[2] + h[0], h[7] - h[5] - h[3] + h[1], z);
                const float xz = mixed(h[5] - h[4] - h[1] + h[0], h[7] - h[6] - h[3] + h[2], y);
                const float yz = mixed(h[3] - h[2] - h[1] + h[0], h[7] - h[6] - h[5] + h[4], x);
                to[0] += at.turn[1] * xy + at.turn[2] * xz;
                to[1] += at.turn[0] * xy + at.turn[2] * yz;
                to[2] += at.turn[0] * xz + at.turn[1] * yz;
            }
            for (int axis = 0; axis < 3; ++axis) out.data[3 * (start + l) + axis] += at.slope[axis] * to[axis];
        });
    };
    FOR_WIDTH(work, numbers);
"""
)
def pull_block(
    block: int, points: Rows, table: Rows, children: Ints, corners: Ints, side: int, lead: int, weight: Rows,
    second: Rows, along: Rows, out: Rows,
):
    """out [M, 3]: gradient in the points of sum(weight * features), weight [M, lead + F].

    With `second` [M, lead + F] and `along` [M, 3] also of sum(second * derivative of the features in that direction).
    """


@wp.func_native(
    _WALK
    + """
    #undef ADD_TO
#if defined(__CUDA_ARCH__)
    #define ADD_TO(at, add) atomicAdd(at, add)
#else
    #define ADD_TO(at, add) *(loose*)(at) += add
#endif
    const int width = grad.shape[1];
    auto work = [&](auto nothing) {
        typedef decltype(nothing) V;
        typedef V loose __attribute__((aligned(4)));
        walk([&](int l, const int* rows, const Place& at) {
            const size_t here = (start + l) * width + lead + number;
            const V g = *(const loose*)(grad.data + here);
            V h = nothing;
            float w[8], d[8];
            weights_of(at, w);
            if (turns) { turned_weights_of(at, d); h = *(const loose*)(weight.data + here); }
            for (int c = 0; c < 8; ++c) {
                if (rows[c] < 0) continue;
                V add = g * w[c];
                if (turns) add += h * d[c];
                ADD_TO(sums.data + (size_t)rows[c] * numbers + number, add);
            }
        });
    };
    FOR_WIDTH(work, numbers);
"""
)
def scatter_block(
    block: int, number: int, points: Rows, table: Rows, children: Ints, corners: Ints, side: int, lead: int,
    grad: Rows, weight: Rows, along: Rows, sums: Rows,
):
    """sums [N, F] += gradient of sum(grad * features), and with `along` of sum(weight * derivative in that direction).

    Of the numbers of one register, from `number` on; grad, weight: [M, lead + F].
    """
