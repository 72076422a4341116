"""CUDA for the layers of a network on a tile of points: a block of threads, its numbers in shared memory.

The same passes as on a CPU (`layers`). In the backward pass every product and every sum over points is divided among
the threads without atomic addition, so that sums come out the same each time.
"""

from __future__ import annotations

from models.kernels.runtime.lanes import TYPES

THREADS = 128  # of a block
BUFFER = 4608  # floats per buffer of a layer's inputs or outputs: 64 channels of 64 points, or 128 of 32
_WEIGHTS = 2176  # and of the part of a layer's weights that is at hand
_PAD = 4  # floats between a tile's channels


def tile_of(widest: int) -> int:
    """How many points fit a buffer, for a network of which no layer is wider, 128 at most."""
    return 64 if widest * (64 + _PAD) <= BUFFER else 32


# A tile in a buffer: the numbers of a channel side by side, `row` apart, so that neither eight threads at eight
# channels nor eight at eight quads of points meet in a bank.
_BLOCK = (
    TYPES
    + f"""
    enum {{ BUFFER = {BUFFER}, WEIGHTS = {_WEIGHTS}, PAD = {_PAD} }};"""
    + """
    // Between two THENs the items of all loops may come in any order. EACH_PAIR: neighboring threads differ in i.
    #undef EACH
    #undef EACH_PAIR
    #undef THEN
    #define EACH(i, n) for (int i = threadIdx.x; i < (n); i += blockDim.x)
    #define EACH_PAIR(i, ni, j, nj) \\
        for (int j = own_j; j < (nj); j += all_j) for (int i = own_i; i < (ni); i += all_i)
    #define THEN __syncthreads()
    alignas(16) __shared__ float buffers[2 * BUFFER + WEIGHTS];
    const int all_i = blockDim.x < warpSize ? blockDim.x : warpSize, all_j = blockDim.x / all_i;
    const int own_i = threadIdx.x % all_i, own_j = threadIdx.x / all_i;
    const int mine = strip / (int)blockDim.x, layers = numbers.shape[0] / 2;
    const int inputs = x.shape[1], count = x.shape[0], outputs = numbers.data[2 * layers - 1];
    const int begin = mine * points, end = begin + points < count ? begin + points : count, row = tile + PAD;
    const float sharpness = softness > 0.0f ? 1.0f / softness : 0.0f, ROOT_HALF = 0.70710678f;
    float *from = buffers, *to = buffers + BUFFER, *weights = buffers + 2 * BUFFER;
    auto swap = [&]() { float* other = from; from = to; to = other; };

    // What is known of level k, the input of layer k, and of that layer; at: where the level is among those kept.
    struct Layer { int ins, outs, below, at; const float *weight, *bias; bool again; float share; };
    auto layer = [&](int k) {
        const float* weight = parameters.data;
        int below = inputs, at = 0;
        for (int j = 0;; ++j) {
            const int ins = j < layers ? numbers.data[2 * j] : outputs, outs = j < layers ? numbers.data[2 * j + 1] : 0;
            const bool again = ins > below;
            if (j == k)
                return Layer{ins, outs, below, at, weight, weight + ins * outs, again, again ? ROOT_HALF : 1.0f};
            if (j > 0) at += tile * ((ins + 15) / 16 * 16);
            weight += ins * outs + outs; below = outs;
        }
    };
    // The slope of the activation with output h.
    auto slope = [&](float h, float share) {
        if (softness > 0.0f) return 1.0f - EXP2(h * (-1.44269504f * softness) / share);
        return h > 0.0f ? 1.0f : 0.0f;
    };
    // Rows of an array, times a factor, into a tile that begins at `into`; zero where there are none.
    auto fetch = [&](float* into, const float* rows_of, int width, int start, int rows, float factor = 1.0f) {
        EACH_PAIR(c, width, r, tile)
            into[c * row + r] = r < rows ? factor * rows_of[(size_t)(start + r) * width + c] : 0.0f;
    };
    // And back, added to what is there or not.
    auto deliver = [&](float* rows_of, const float* tile_of, int width, int start, int rows, float factor, bool add) {
        EACH_PAIR(c, width, r, rows) {
            float* at = rows_of + (size_t)(start + r) * width + c;
            *at = factor * tile_of[c * row + r] + (add ? *at : 0.0f);
        }
    };
    // A block of four channels and four or eight points, in registers: sums over a part of the layer's inputs.
    struct Four { enum { QUADS = 1 }; };
    struct Eight { enum { QUADS = 2 }; };
    auto add_part = [&](auto block, int wide, int stride, int deep, const float* start, const float* left) {
        enum { QUADS = decltype(block)::QUADS };
        const int groups = wide / 4;
        EACH(item, groups * (tile / (4 * QUADS))) {
            const int o = item % groups * 4, r = item / groups * (4 * QUADS);
            float sum[4][4 * QUADS];
            #pragma unroll
            for (int j = 0; j < 4; ++j)
                #pragma unroll
                for (int p = 0; p < 4 * QUADS; ++p) sum[j][p] = start ? start[j + o] : to[(o + j) * row + r + p];
            #pragma unroll 4
            for (int k = 0; k < deep; ++k) {
                const float4 w = *(const float4*)(weights + k * stride + o);
                #pragma unroll
                for (int q = 0; q < QUADS; ++q) {
                    const float4 a = *(const float4*)(left + k * row + r + 4 * q);
                    const float factors[4] = {w.x, w.y, w.z, w.w}, numbers_[4] = {a.x, a.y, a.z, a.w};
                    #pragma unroll
                    for (int j = 0; j < 4; ++j)
                        #pragma unroll
                        for (int p = 0; p < 4; ++p) sum[j][4 * q + p] += factors[j] * numbers_[p];
                }
            }
            #pragma unroll
            for (int j = 0; j < 4; ++j)
                #pragma unroll
                for (int q = 0; q < QUADS; ++q) {
                    const float* s = sum[j] + 4 * q;
                    *(float4*)(to + (o + j) * row + r + 4 * q) = make_float4(s[0], s[1], s[2], s[3]);
                }
        }
    };
    // to[o] = bias[o] + sum over k < depth of from[k] weight[k of_k + o of_o], for channels o < n. All threads wait
    // before `from` is read and `to` written, and after it.
    auto product = [&](int n, int depth, const float* bias, const float* weight, int of_k, int of_o) {
        const int wide = (n + 3) / 4 * 4, stride = wide + PAD, most = WEIGHTS / stride - 1;
        float* first = weights + most * stride;  // the biases
        for (int k0 = 0; k0 < depth; k0 += most) {
            const int deep = depth - k0 < most ? depth - k0 : most;
            const float* part = weight + k0 * of_k;
            if (of_k == 1) {
                EACH_PAIR(k, deep, o, wide) weights[k * stride + o] = o < n ? part[k + o * of_o] : 0.0f;
            } else {
                EACH_PAIR(o, wide, k, deep) weights[k * stride + o] = o < n ? part[k * of_k + o] : 0.0f;
            }
            EACH(o, k0 == 0 ? wide : 0) first[o] = bias && o < n ? bias[o] : 0.0f;
            THEN;
            const float* start = k0 == 0 ? first : nullptr;
            if (wide * tile > 2048) add_part(Eight(), wide, stride, deep, start, from + k0 * row);
            else add_part(Four(), wide, stride, deep, start, from + k0 * row);
            THEN;
        }
    };
"""
)

# x, parameters ... : see `mlp`.
OUTPUT = (
    _BLOCK
    + """
    for (int start = begin; start < end; start += tile) {
        const int rows = end - start < tile ? end - start : tile;
        float* levels = kept.shape[0] > 0 ? kept.data + (size_t)(start / tile) * kept.shape[1] : nullptr;
        THEN;
        fetch(from, x.data, inputs, start, rows);
        for (int k = 1; k <= layers; ++k) {
            const Layer l = layer(k - 1), next = layer(k);
            product(l.outs, l.ins, l.bias, l.weight, 1, l.ins);
            if (k < layers) {
                EACH_PAIR(r, tile, c, next.below) {
                    const float v = to[c * row + r];
                    const float h = next.share * (softness > 0.0f ? SOFTPLUS(v, softness, sharpness) : RELU(v));
                    to[c * row + r] = h;
                    if (levels) levels[next.at + c * tile + r] = h;
                }
                if (next.again) {
                    fetch(to + next.below * row, x.data, inputs, start, rows, ROOT_HALF);
                    THEN;
                    EACH_PAIR(r, tile, c, levels ? inputs : 0)
                        levels[next.at + (next.below + c) * tile + r] = to[(next.below + c) * row + r];
                }
            }
            swap();
        }
        deliver(out.data, from, outputs, start, rows, 1.0f, false);
        if (channel < 0) continue;
        THEN;
        bool begun = false;
        for (int k = layers - 1; k >= 0; --k) {
            const Layer l = layer(k);
            if (k == layers - 1) {
                EACH_PAIR(r, tile, c, l.ins) from[c * row + r] = l.weight[channel * l.ins + c];
                THEN;
            }
            if (k == 0) break;
            if (l.again) {
                deliver(gradient.data, from + l.below * row, inputs, start, rows, ROOT_HALF, begun);
                begun = true;
            }
            EACH_PAIR(r, tile, c, l.below)
                from[c * row + r] *= l.share * slope(levels[l.at + c * tile + r], l.share);
            const Layer under = layer(k - 1);
            product(under.ins, under.outs, nullptr, under.weight, under.ins, 1);
            swap();
        }
        deliver(gradient.data, from, inputs, start, rows, 1.0f, begun);
    }
"""
)

GRADIENTS = (
    _BLOCK
    + """
    const bool second = grad_gradient.shape[0] > 0, seen = grad_out.shape[0] > 0, wanted = grad_x.shape[0] > 0;
    float* sums_of = sums.data + (size_t)mine * sums.shape[1];
    float* q = scratch.data + (size_t)mine * scratch.shape[1];  // levels as they are kept
    // The gradient of each weight, a sum over points; a block of four by four in registers.
    auto weigh = [&](const Layer& l, const float* above, const float* under) {
        float* into = sums_of + (l.weight - parameters.data);
        const int apart = (l.ins + 3) / 4, apart_above = (l.outs + 3) / 4;
        EACH(item, apart * apart_above) {
            const float* u = under + item % apart * row;
            const float* a = above + item / apart * row;
            float sum[4][4] = {};
            for (int r = 0; r < tile; r += 4) {
                float4 us[4], as[4];
                #pragma unroll
                for (int i = 0; i < 4; ++i) {
                    us[i] = *(const float4*)(u + i * apart * row + r);
                    as[i] = *(const float4*)(a + i * apart_above * row + r);
                }
                #pragma unroll
                for (int o = 0; o < 4; ++o)
                    #pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        sum[o][i] += as[o].x * us[i].x; sum[o][i] += as[o].y * us[i].y;
                        sum[o][i] += as[o].z * us[i].z; sum[o][i] += as[o].w * us[i].w;
                    }
            }
            #pragma unroll
            for (int o = 0; o < 4; ++o)
                #pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int to_o = item / apart + o * apart_above, to_i = item % apart + i * apart;
                    if (to_o < l.outs && to_i < l.ins) into[to_o * l.ins + to_i] += sum[o][i];
                }
        }
    };
    auto add_up = [&](const float* at, int channels, const float* of) {
        float* into = sums_of + (at - parameters.data);
        EACH(c, channels) {
            float4 sum = *(const float4*)(of + c * row);
            for (int r = 4; r < tile; r += 4) {
                const float4 v = *(const float4*)(of + c * row + r);
                sum.x += v.x; sum.y += v.y; sum.z += v.z; sum.w += v.w;
            }
            into[c] += (sum.x + sum.y) + (sum.z + sum.w);
        }
    };
    EACH(i, sums.shape[1]) sums_of[i] = 0.0f;
    for (int start = begin; start < end; start += tile) {
        const int rows = end - start < tile ? end - start : tile;
        const float* levels = kept.data + (size_t)(start / tile) * kept.shape[1];
        THEN;
        if (second) {
            // Down: q, the gradient at the input of the activation below level k.
            for (int k = layers - 1; k > 0; --k) {
                const Layer l = layer(k);
                EACH_PAIR(r, tile, c, l.below) {
                    const float p = k == layers - 1 ? l.weight[channel * l.ins + c] : from[c * row + r];
                    const float v = l.share * slope(levels[l.at + c * tile + r], l.share) * p;
                    from[c * row + r] = q[l.at + c * tile + r] = v;
                }
                THEN;
                if (k == 1) break;
                const Layer under = layer(k - 1);
                product(under.below, under.outs, nullptr, under.weight, under.ins, 1);
                swap();
            }
            // And up again, with the loss's gradient at the input gradient. What it contributes at the input of the
            // activation, the second derivative times both factors, takes the place of q.
            fetch(from, grad_gradient.data, inputs, start, rows);
            for (int k = 0; k < layers - 1; ++k) {
                const Layer l = layer(k), next = layer(k + 1);
                EACH_PAIR(r, tile, c, next.below) to[c * row + r] = q[next.at + c * tile + r];
                THEN;
                weigh(l, to, from);
                product(l.outs, l.ins, nullptr, l.weight, 1, l.ins);
                EACH_PAIR(r, tile, c, next.below) {
                    const int at = next.at + c * tile + r;
                    const float s = slope(levels[at], next.share), v = to[c * row + r];
                    q[at] = softness * (1.0f - s) * q[at] * v;
                    to[c * row + r] = next.share * s * v;
                }
                if (next.again) fetch(to + next.below * row, grad_gradient.data, inputs, start, rows, ROOT_HALF);
                swap();
            }
            THEN;
            const Layer last = layer(layers - 1);
            add_up(last.weight + channel * last.ins, last.ins, from);
            THEN;
        }
        bool begun = false;
        fetch(from, grad_out.data, outputs, start, seen ? rows : 0);
        for (int k = layers - 1; k >= 0; --k) {
            const Layer l = layer(k);
            if (k == 0) {
                fetch(to, x.data, inputs, start, rows);
            } else {
                EACH_PAIR(r, tile, c, l.ins) to[c * row + r] = levels[l.at + c * tile + r];
            }
            THEN;
            weigh(l, from, to);
            add_up(l.bias, l.outs, from);
            if (k == 0 && !wanted) break;
            product(l.ins, l.outs, nullptr, l.weight, l.ins, 1);
            if (k > 0) {
                if (l.again && wanted) {
                    deliver(grad_x.data, to + l.below * row, inputs, start, rows, ROOT_HALF, begun);
                    begun = true;
                }
                EACH_PAIR(r, tile, c, l.below) {
                    const int at = l.at + c * tile + r;
                    const float v = l.share * slope(levels[at], l.share) * to[c * row + r];
                    to[c * row + r] = second ? v + q[at] : v;
                }
            }
            swap();
        }
        if (wanted) deliver(grad_x.data, from, inputs, start, rows, 1.0f, begun);
    }
"""
)
