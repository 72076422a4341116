"""C++ for the layers of a network on a tile of points: the output with a channel's gradient, and their backward pass.

By the vector registers of a CPU; by a block of threads on a GPU (`block_layers`).
"""

from __future__ import annotations

from models.kernels.networks.block_layers import GRADIENTS, OUTPUT
from models.kernels.networks.products import PRODUCTS
from models.kernels.runtime.native import Floats, Ints, Rows, native_kernel

NEAR = 1 << 16  # floats of scratch memory that a thread has on its stack, where it stays in its core's cache

# The weights, padded to whole vectors; the levels (level k: the input of layer k), and tiles from and to memory.
_LAYERS = (
    PRODUCTS
    + """
    enum { MOST = 40, NEAR = """
    + str(NEAR)
    + """ };  // more layers than a config has
    #undef PADDED
    #define PADDED(n) (((n) + LANES - 1) / LANES * LANES)
    const int layers = numbers.shape[0] / 2, outputs = numbers.data[2 * layers - 1];
    const int inputs = x.shape[1], count = x.shape[0];
    const int begin = strip * points, end = begin + points < count ? begin + points : count;
    const float sharpness = softness > 0.0f ? 1.0f / softness : 0.0f, ROOT_HALF = 0.70710678f;
    alignas(64) float near[NEAR];
    float* free_room = scratch.shape[0] > 0 ? scratch.data + (size_t)strip * scratch.shape[1] : near;
    auto take = [&](int floats) { float* at = free_room; free_room += floats; return at; };
    const Matrix nothing = {nullptr, 0, 1};
    // Per level: numbers of the layer below, padded; floats from point to point; whether x stands behind them.
    int ins[MOST], outs[MOST], below[MOST], columns[MOST], row[MOST], widest = 0;
    bool again[MOST];
    float *up[MOST], *down[MOST], *bias[MOST], *h[MOST], *slope[MOST];
    for (int k = 0; k <= layers; ++k) {
        ins[k] = k < layers ? numbers.data[2 * k] : outputs;
        outs[k] = k < layers ? numbers.data[2 * k + 1] : 0;
        below[k] = k > 0 ? outs[k - 1] : inputs;
        columns[k] = PADDED(below[k]); row[k] = PADDED(ins[k]); again[k] = ins[k] > below[k];
        if (row[k] > widest) widest = row[k];
    }
    {
        const float* from = parameters.data;
        for (int k = 0; k < layers; ++k) {
            const int wide = columns[k + 1];
            up[k] = take(ins[k] * wide); bias[k] = take(wide); down[k] = take(outs[k] * row[k]);
            for (int first = 0; first < wide; first += LANES)
                for (int i = 0; i < ins[k]; ++i)
                    for (int o = first; o < first + LANES; ++o)
                        up[k][i * wide + o] = o < outs[k] ? from[o * ins[k] + i] : 0.0f;
            for (int o = 0; o < outs[k]; ++o)
                for (int i = 0; i < row[k]; ++i) down[k][o * row[k] + i] = i < ins[k] ? from[o * ins[k] + i] : 0.0f;
            from += ins[k] * outs[k];
            for (int o = 0; o < wide; ++o) bias[k][o] = o < outs[k] ? from[o] : 0.0f;
            from += outs[k];
        }
    }
    for (int k = 0; k <= layers; ++k) { h[k] = take(tile * row[k]); slope[k] = take(tile * row[k]); }
    // The hidden levels of the tile that begins with this point, where they are kept.
    auto find_kept = [&](int start) {
        if (kept.shape[0] == 0) return;
        float* at = kept.data + (size_t)(start / tile) * kept.shape[1];
        for (int k = 1; k < layers; ++k) { h[k] = at; at += tile * row[k]; }
    };
    // Rows of an array, `width` wide, into a tile. The padding behind a row's end is not zero and never matters: a
    // padded column affects itself alone. Points that are not there are zero.
    auto fetch = [&](float* to, const float* from, int width, int start, int rows) __attribute__((noinline)) {
        const int row = PADDED(width);
        for (int r = 0; r < tile; ++r, to += row) {
            const float* at = from + (size_t)(start + r) * width;
            if (r < rows && (long long)(count - start - r) * width >= row)
                for (int c = 0; c < row; c += LANES) WRITE(to + c, READ(at + c));
            else
                for (int c = 0; c < row; ++c) to[c] = r < rows && c < width ? at[c] : 0.0f;
        }
    };
    // And back: rows that overwrite what the one before has written too much, and none behind the last.
    auto deliver = [&](float* to, const float* from, int from_row, int width, int start, int rows)
                       __attribute__((noinline)) {
        const int row = PADDED(width);
        to += (size_t)start * width;
        for (int r = 0; r < rows; ++r, to += width, from += from_row) {
            if ((rows - r) * width >= row)
                for (int c = 0; c < row; c += LANES) WRITE(to + c, READ(from + c));
            else
                for (int c = 0; c < width; ++c) to[c] = from[c];
        }
    };
    // The columns of a level that repeat the input, from that; and their gradient, added to that at the input.
    auto put_again = [&](int k, float* to, const float* from) {
        for (int r = 0; again[k] && r < tile; ++r)
            for (int c = 0; c < inputs; ++c) to[r * row[k] + below[k] + c] = ROOT_HALF * from[r * row[0] + c];
    };
    auto add_again = [&](int k, float* to, const float* from, int from_row) {
        for (int r = 0; again[k] && r < tile; ++r)
            for (int c = 0; c < inputs; ++c) to[r * row[0] + c] += ROOT_HALF * from[r * from_row + below[k] + c];
    };
    // Down from level k + 1 to k: the gradient `p` there (p_row 0: all points share it), times the slopes, into `q`.
    auto scale = [&](int k, float* q, const float* p, int p_row) {
        const float share = again[k] ? ROOT_HALF : 1.0f;
        const float* s = slope[k];
        for (int r = 0; r < tile; ++r, q += row[k], s += row[k], p += p_row)
            for (int c = 0; c < columns[k]; c += LANES) WRITE(q + c, share * READ(s + c) * READ(p + c));
    };
"""
)


@native_kernel(
    "#if defined(__CUDA_ARCH__)\n"
    + OUTPUT
    + "#else\n"
    + _LAYERS
    + """
    float *at_input = take(tile * row[0]), *other = take(tile * widest);
    for (int start = begin; start < end; start += tile) {
        const int rows = end - start < tile ? end - start : tile;
        find_kept(start);
        fetch(h[0], x.data, inputs, start, rows);
        for (int k = 1; k <= layers; ++k) {
            float *a = h[k], *s = slope[k];
            product(tile, columns[k], ins[k - 1], a, row[k], Matrix{bias[k - 1], 0, 1}, Matrix{h[k - 1], row[k - 1], 1},
                    up[k - 1], columns[k]);
            if (k == layers) break;
            const float share = again[k] ? ROOT_HALF : 1.0f;
            for (int r = 0; r < tile; ++r, a += row[k], s += row[k]) {
                if (softness > 0.0f) {
                    NO_LOOP_VECTORS
                    for (int c = 0; c < columns[k]; c += LANES) {
                        const vf v = READ(a + c), e = EXP2(ABS(v) * (-1.44269504f * softness));
                        WRITE(a + c, share * (RELU(v) + sharpness * LOG_1_PLUS(e)));
                        if (channel >= 0) WRITE(s + c, SELECT(v > 0.0f, (vf)1.0f, e) / (1.0f + e));
                    }
                } else {
                    NO_LOOP_VECTORS
                    for (int c = 0; c < columns[k]; c += LANES) {
                        const vf v = READ(a + c);
                        WRITE(a + c, share * RELU(v));
                        if (channel >= 0) WRITE(s + c, SELECT(v > 0.0f, (vf)1.0f, (vf)0.0f));
                    }
                }
            }
            put_again(k, h[k], h[0]);
        }
        deliver(out.data, h[layers], row[layers], outputs, start, rows);
        if (channel < 0) continue;
        const float* p = down[layers - 1] + channel * row[layers - 1];
        int p_row = 0;
        for (int i = 0; i < tile * row[0]; ++i) at_input[i] = 0.0f;
        for (int k = layers - 1; k > 0; --k) {
            add_again(k, at_input, p, p_row);
            scale(k, slope[k], p, p_row);
            p_row = row[k - 1];
            product(tile, p_row, outs[k - 1], other, p_row, nothing, Matrix{slope[k], row[k], 1}, down[k - 1], p_row);
            p = other;
        }
        for (int r = 0; r < tile; ++r)
            for (int c = 0; c < row[0]; c += LANES)
                WRITE(at_input + r * row[0] + c, READ(at_input + r * row[0] + c) + READ(p + r * p_row + c));
        deliver(gradient.data, at_input, row[0], inputs, start, rows);
    }
#endif
"""
)
def forward_layers(
    strip: int, x: Rows, parameters: Floats, numbers: Ints, tile: int, points: int, softness: float, channel: int,
    scratch: Rows, kept: Rows, out: Rows, gradient: Rows,
): ...


@native_kernel(
    "#if defined(__CUDA_ARCH__)\n"
    + GRADIENTS
    + "#else\n"
    + _LAYERS
    + """
    const bool second = grad_gradient.shape[0] > 0, seen = grad_out.shape[0] > 0, wanted = grad_x.shape[0] > 0;
    float *q[MOST], *of_weight[MOST], *of_bias[MOST];
    for (int k = 0; k <= layers; ++k) q[k] = h[k];  // the levels themselves are kept
    for (int k = 0; k < layers; ++k) {
        of_weight[k] = take(outs[k] * row[k]); of_bias[k] = take(columns[k + 1]);
        for (int i = 0; i < outs[k] * row[k]; ++i) of_weight[k][i] = 0.0f;
        for (int i = 0; i < columns[k + 1]; ++i) of_bias[k][i] = 0.0f;
    }
    float *p = take(tile * widest), *other = take(tile * widest);
    float *at_input = take(tile * row[0]), *asked = take(tile * row[0]);
    auto add_up = [&](float* to, const float* from, int from_row, int wide) {
        for (int c = 0; c < wide; c += LANES) {
            vf sum[4] = {READ(to + c), (vf)0.0f, (vf)0.0f, (vf)0.0f};  // independent of one another
            for (int r = 0; r < tile; r += 4)
                ALL_OF for (int i = 0; i < 4; ++i) sum[i] += READ(from + (r + i) * from_row + c);
            WRITE(to + c, (sum[0] + sum[1]) + (sum[2] + sum[3]));
        }
    };
    // The gradient of a weight between level k and level k + 1, a sum over points.
    auto weigh = [&](int k, const float* under, const float* above) {
        product(outs[k], row[k], tile, of_weight[k], row[k], Matrix{of_weight[k], row[k], 1},
                Matrix{above, 1, row[k + 1]}, under, row[k]);
    };
    for (int start = begin; start < end; start += tile) {
        const int rows = end - start < tile ? end - start : tile;
        find_kept(start);
        fetch(at_input, x.data, inputs, start, rows);
        h[0] = at_input;
        for (int k = 1; k < layers; ++k) {
            const float sharp = -1.44269504f * softness * (again[k] ? 1.41421356f : 1.0f);
            for (int r = 0; r < tile; ++r) {
                const float* a = h[k] + r * row[k];
                float* s = slope[k] + r * row[k];
                if (softness > 0.0f) {
                    NO_LOOP_VECTORS
                    for (int c = 0; c < columns[k]; c += LANES) WRITE(s + c, 1.0f - EXP2(READ(a + c) * sharp));
                } else {
                    NO_LOOP_VECTORS
                    for (int c = 0; c < columns[k]; c += LANES)
                        WRITE(s + c, SELECT(READ(a + c) > 0.0f, (vf)1.0f, (vf)0.0f));
                }
            }
        }
        if (second) {
            // Down: q, the gradient at the input of the activation below level k.
            scale(layers - 1, q[layers - 1], down[layers - 1] + channel * row[layers - 1], 0);
            for (int k = layers - 2; k > 0; --k) {
                product(tile, row[k], outs[k], p, row[k], nothing, Matrix{q[k + 1], row[k + 1], 1}, down[k], row[k]);
                scale(k, q[k], p, row[k]);
            }
            // And up again, with the loss's gradient at the input gradient. What it contributes at the input of the
            // activation, the second derivative times both factors, takes the place of q.
            fetch(asked, grad_gradient.data, inputs, start, rows);
            const float* under = asked;
            for (int k = 0; k < layers - 1; ++k) {
                const int to_row = row[k + 1];
                const float share = again[k + 1] ? ROOT_HALF : 1.0f;
                weigh(k, under, q[k + 1]);
                product(tile, columns[k + 1], ins[k], other, to_row, nothing, Matrix{under, row[k], 1}, up[k],
                        columns[k + 1]);
                for (int r = 0; r < tile; ++r) {
                    const int at = r * to_row;
                    for (int i = at; i < at + columns[k + 1]; i += LANES) {
                        const vf s = READ(slope[k + 1] + i), v = READ(other + i);
                        WRITE(q[k + 1] + i, softness * (1.0f - s) * READ(q[k + 1] + i) * v);
                        WRITE(p + i, share * s * v);
                    }
                }
                put_again(k + 1, p, asked);
                under = p;
            }
            add_up(of_weight[layers - 1] + channel * row[layers - 1], under, row[layers - 1], row[layers - 1]);
        }
        float *above = p, *under = other;
        fetch(above, grad_out.data, outputs, start, seen ? rows : 0);
        for (int i = 0; i < tile * row[0]; ++i) asked[i] = 0.0f;  // from here on the gradient at x, of the skip layers
        for (int k = layers - 1; k >= 0; --k) {
            weigh(k, h[k], above);
            add_up(of_bias[k], above, row[k + 1], columns[k + 1]);
            if (k == 0 && !wanted) break;
            product(tile, row[k], outs[k], under, row[k], nothing, Matrix{above, row[k + 1], 1}, down[k], row[k]);
            add_again(k, asked, under, row[k]);
            if (k > 0) {
                const float share = again[k] ? ROOT_HALF : 1.0f;
                for (int r = 0; r < tile; ++r) {
                    const int at = r * row[k];
                    for (int i = at; i < at + columns[k]; i += LANES) {
                        const vf v = share * READ(under + i) * READ(slope[k] + i);
                        WRITE(under + i, second ? v + READ(q[k] + i) : v);
                    }
                }
            }
            float* swap = above; above = under; under = swap;
        }
        if (!wanted) continue;
        for (int i = 0; i < tile * row[0]; i += LANES) WRITE(above + i, READ(above + i) + READ(asked + i));
        deliver(grad_x.data, above, row[0], inputs, start, rows);
    }
    float* to = sums.data + (size_t)strip * sums.shape[1];
    for (int k = 0; k < layers; ++k) {
        for (int o = 0; o < outs[k]; ++o)
            for (int i = 0; i < ins[k]; ++i) to[o * ins[k] + i] = of_weight[k][o * row[k] + i];
        to += ins[k] * outs[k];
        for (int o = 0; o < outs[k]; ++o) to[o] = of_bias[k][o];
        to += outs[k];
    }
#endif
"""
)
def backward_layers(
    strip: int, x: Rows, parameters: Floats, numbers: Ints, tile: int, points: int, softness: float, channel: int,
    grad_out: Rows, grad_gradient: Rows, scratch: Rows, kept: Rows, grad_x: Rows, sums: Rows,
): ...
