"""A small network without a graph: all layers for a block of points while they are in the cache.

The training pass keeps torch's matrix products, whose gradients it needs; this one serves where only the output is
wanted: the values that a sampler looks at, grids, meshes and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import warp as wp
from torch import Tensor

from models.kernels.lanes import TYPES, lanes
from models.kernels.launch import launch

WIDEST = 128  # a block's activations stay in the first-level cache
ACTIVATIONS = ("relu", "softplus")


def mlp_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, activation: str, beta: float
) -> Tensor:
    """The network's output.

    x: [M, inputs] float32. weights: per layer [outputs, inputs], each side at most `WIDEST`; biases: [outputs].
    activation: between layers, "relu" or "softplus" (log(1 + exp(beta x)) / beta). Returns [M, outputs of the last].
    Not differentiable. Raises ValueError for an activation that it does not know.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: expected one of {ACTIVATIONS}")
    x = x.contiguous()
    shape = torch.tensor([x.shape[1], *(len(weight) for weight in weights)], dtype=torch.int32, device=x.device)
    flat = torch.cat([part.reshape(-1) for pair in zip(weights, biases, strict=True) for part in pair])
    out = x.new_empty(len(x), len(weights[-1]))
    blocks = -(-len(x) // lanes(x.device, registers=2))
    softness = beta if activation == "softplus" else 0.0
    launch(_forward, blocks, [x, flat, shape, softness, out], device=x.device, grain=32)
    return out


@wp.func_native(
    TYPES
    + """
    // Two registers of points: a weight that is fetched serves both, and the products wait for nothing else.
#if defined(__CUDA_ARCH__)
    typedef float wide;
    enum { POINTS = 1 };
    #define POINT(v, l) v
    #define ADD_TO(sum, weight, v) sum = fmaf(weight, v, sum)
#else
    typedef float wide __attribute__((ext_vector_type(32)));
    enum { POINTS = 2 * LANES };
    #define POINT(v, l) v[l]
    #define ADD_TO(sum, weight, v) sum = __builtin_elementwise_fma((wide)(weight), v, sum)
#endif
    const int count = x.shape[0], inputs = x.shape[1], start = block * POINTS;
    const int end = count - start < POINTS ? count - start : POINTS;
    wide buffers[2][128];
    wide *h = buffers[0], *next = buffers[1];
    for (int l = 0; l < POINTS; ++l) {
        const float* from = x.data + (size_t)(start + (l < end ? l : end - 1)) * inputs;
        for (int c = 0; c < inputs; ++c) POINT(h[c], l) = from[c];
    }
    const float* weight = parameters.data;
    const float sharpness = softness > 0.0f ? 1.0f / softness : 0.0f;
    const int layers = shape.shape[0] - 1;
    for (int layer = 0; layer < layers; ++layer) {
        const int ins = shape.data[layer], outs = shape.data[layer + 1];
        const float* bias = weight + ins * outs;
        int r = 0;
        for (; r + 8 <= outs; r += 8) {  // eight rows at a time: every activation is loaded once for all of them
            const float* w = weight + r * ins;
            wide s0 = bias[r], s1 = bias[r + 1], s2 = bias[r + 2], s3 = bias[r + 3];
            wide s4 = bias[r + 4], s5 = bias[r + 5], s6 = bias[r + 6], s7 = bias[r + 7];
            NO_LOOP_VECTORS
            for (int c = 0; c < ins; ++c) {
                const wide v = h[c];
                ADD_TO(s0, w[c], v); ADD_TO(s1, w[ins + c], v); ADD_TO(s2, w[2 * ins + c], v);
                ADD_TO(s3, w[3 * ins + c], v); ADD_TO(s4, w[4 * ins + c], v); ADD_TO(s5, w[5 * ins + c], v);
                ADD_TO(s6, w[6 * ins + c], v); ADD_TO(s7, w[7 * ins + c], v);
            }
            next[r] = s0; next[r + 1] = s1; next[r + 2] = s2; next[r + 3] = s3;
            next[r + 4] = s4; next[r + 5] = s5; next[r + 6] = s6; next[r + 7] = s7;
        }
        for (; r < outs; ++r) {  // sums that do not wait for one another
            const float* w = weight + r * ins;
            wide s0 = bias[r], s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
            int c = 0;
            NO_LOOP_VECTORS
            for (; c + 4 <= ins; c += 4) {
                ADD_TO(s0, w[c], h[c]); ADD_TO(s1, w[c + 1], h[c + 1]);
                ADD_TO(s2, w[c + 2], h[c + 2]); ADD_TO(s3, w[c + 3], h[c + 3]);
            }
            for (; c < ins; ++c) ADD_TO(s0, w[c], h[c]);
            next[r] = (s0 + s1) + (s2 + s3);
        }
        weight = bias + outs;
        vf* half = (vf*)next;
        NO_LOOP_VECTORS
        for (int c = 0; c < outs * POINTS / LANES && layer + 1 < layers; ++c)
            half[c] = softness > 0.0f ? SOFTPLUS(half[c], softness, sharpness) : VMAX(half[c], (vf)0.0f);
        wide* swap = h; h = next; next = swap;
    }
    const int outputs = out.shape[1];
    for (int l = 0; l < end; ++l)
        for (int c = 0; c < outputs; ++c) out.data[(size_t)(start + l) * outputs + c] = POINT(h[c], l);
"""
)
def _block(
    block: int,
    x: wp.array2d(dtype=float),
    parameters: wp.array(dtype=float),
    shape: wp.array(dtype=int),
    softness: float,
    out: wp.array2d(dtype=float),
): ...


@wp.kernel(enable_backward=False)
def _forward(
    first: int,
    x: wp.array2d(dtype=float),
    parameters: wp.array(dtype=float),
    shape: wp.array(dtype=int),
    softness: float,
    out: wp.array2d(dtype=float),
):
    _block(first + wp.tid(), x, parameters, shape, softness, out)
