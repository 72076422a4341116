"""A small network, all layers of it for a tile of points while they are in the cache: output, gradient and backward.

Between the layers nothing goes to memory. Backward computes the activations again: that is cheaper than keeping them.
Wide networks and GPUs take torch's matrix products instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.launch import launch
from models.kernels.products import PRODUCTS

WIDEST = 128  # what a tile needs stays in the second-level cache
ACTIVATIONS = ("relu", "softplus")
TILE = 48  # points: whole blocks of rows, whatever the block
STRIP = 40 * TILE  # points with a scratch memory and sums of weight gradients of their own


def mlp_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, activation: str, beta: float
) -> Tensor:
    """The network's output.

    x: [M, inputs] float32 on a CPU. weights: per layer [outputs, inputs], each side at most `WIDEST`; biases:
    [outputs]. activation: between layers, "relu" or "softplus" (log(1 + exp(beta x)) / beta). Returns [M, outputs of
    the last]. Not differentiable. Raises ValueError for an activation that it does not know.
    """
    parameters = [part for pair in zip(weights, biases, strict=True) for part in pair]
    return _forward_pass(x, _shape(x, parameters), parameters, _softness(activation, beta), -1)[0]


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    activation: str,
    beta: float,
    channel: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The output [M, outputs] and, where a channel of it is named, that channel's gradient [M, inputs] at x.

    Arguments as of `mlp_forward`. Both results are differentiable once in x, weights and biases.
    """
    parameters = [part for pair in zip(weights, biases, strict=True) for part in pair]
    found = _Network.apply(x, _softness(activation, beta), -1 if channel is None else channel, *parameters)
    return (found, None) if channel is None else found


def _softness(activation: str, beta: float) -> float:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: expected one of {ACTIVATIONS}")
    return beta if activation == "softplus" else 0.0


def _shape(x: Tensor, parameters: Sequence[Tensor]) -> list[int]:
    return [x.shape[1], *(len(bias) for bias in parameters[1::2])]


def _room(shape: list[int], *, backward: bool) -> int:
    """Floats of scratch memory per strip: what `take` is asked for."""
    pad = [-(-width // 16) * 16 for width in shape]
    layers = range(len(shape) - 1)
    up, down = sum((shape[k] + 1) * pad[k + 1] for k in layers), sum(shape[k + 1] * pad[k] for k in layers)
    if not backward:
        return up + down + TILE * (2 * sum(pad) + max(pad))
    return 2 * up + down + TILE * (3 * sum(pad) + 2 * max(pad)) + max(pad)


def _forward_pass(
    x: Tensor, shape: list[int], parameters: Sequence[Tensor], softness: float, channel: int
) -> tuple[Tensor, Tensor]:
    x, strips = x.contiguous(), -(-len(x) // STRIP)
    flat = torch.cat([part.reshape(-1) for part in parameters])
    out = x.new_empty(len(x), shape[-1])
    gradient = x.new_empty(len(x) if channel >= 0 else 0, shape[0])
    scratch, widths = x.new_empty(strips, _room(shape, backward=False)), torch.tensor(shape, dtype=torch.int32)
    launch(_forward, strips, [x, flat, widths, softness, channel, scratch, out, gradient], device=x.device, grain=1)
    return out, gradient


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, softness: float, channel: int, *parameters: Tensor) -> Any:
        ctx.save_for_backward(x, *parameters)
        ctx.softness, ctx.channel = softness, channel
        ctx.set_materialize_grads(False)
        out, gradient = _forward_pass(x, _shape(x, parameters), parameters, softness, channel)
        return out if channel < 0 else (out, gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_gradient: Tensor | None = None) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        if grad_out is None and grad_gradient is None:
            return (None,) * (3 + len(parameters))
        shape, x, strips = _shape(x, parameters), x.contiguous(), -(-len(x) // STRIP)
        flat = torch.cat([part.reshape(-1) for part in parameters])
        nothing = x.new_empty(0, 1)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else nothing
        sums, scratch = x.new_empty(strips, len(flat)), x.new_empty(strips, _room(shape, backward=True))
        widths = torch.tensor(shape, dtype=torch.int32)
        grads = [nothing if grad is None else grad.contiguous() for grad in (grad_out, grad_gradient)]
        arguments = [x, flat, widths, ctx.softness, max(ctx.channel, 0), *grads, scratch, grad_x, sums]
        launch(_backward, strips, arguments, device=x.device, grain=1)
        parts = sums.sum(0).split([part.numel() for part in parameters])
        of_parameters = (part.view_as(like) for part, like in zip(parts, parameters, strict=True))
        return (grad_x if ctx.needs_input_grad[0] else None, None, None, *of_parameters)


# The weights, padded with zeros to whole vectors; and the layers of a tile, up and down.
_LAYERS = (
    "#if !defined(__CUDA_ARCH__)\n"
    + PRODUCTS
    + """
    enum { TILE = 48, STRIP = 40 * TILE, MOST = 40 };  // as in Python; and more layers than a config has
    #undef PADDED
    #define PADDED(n) (((n) + LANES - 1) / LANES * LANES)
    const int layers = widths.shape[0] - 1, inputs = x.shape[1], count = x.shape[0];
    const int* width = widths.data;
    const int begin = strip * STRIP, end = begin + STRIP < count ? begin + STRIP : count;
    const float sharpness = softness > 0.0f ? 1.0f / softness : 0.0f;
    float* free_room = scratch.data + (size_t)strip * scratch.shape[1];
    auto take = [&](int floats) { float* at = free_room; free_room += floats; return at; };
    int pad[MOST], widest = 0;  // per layer of neurons, the input first
    float *up[MOST], *down[MOST], *bias[MOST], *h[MOST], *slope[MOST];
    {
        const float* from = parameters.data;
        for (int k = 0; k <= layers; ++k) { pad[k] = PADDED(width[k]); if (pad[k] > widest) widest = pad[k]; }
        for (int k = 0; k < layers; ++k) {
            const int ins = width[k], outs = width[k + 1];
            up[k] = take(ins * pad[k + 1]); bias[k] = take(pad[k + 1]); down[k] = take(outs * pad[k]);
            for (int i = 0; i < ins; ++i)
                for (int o = 0; o < pad[k + 1]; ++o) up[k][i * pad[k + 1] + o] = o < outs ? from[o * ins + i] : 0.0f;
            for (int o = 0; o < outs; ++o)
                for (int i = 0; i < pad[k]; ++i) down[k][o * pad[k] + i] = i < ins ? from[o * ins + i] : 0.0f;
            from += ins * outs;
            for (int o = 0; o < pad[k + 1]; ++o) bias[k][o] = o < outs ? from[o] : 0.0f;
            from += outs;
        }
    }
    for (int k = 0; k <= layers; ++k) { h[k] = take(TILE * pad[k]); slope[k] = take(TILE * pad[k]); }
    // Rows of an array, `width` wide, into a tile. What stands behind a row's end is not zero and never matters: a
    // padded column says something about itself alone. Points that are not there are zero.
    auto fetch = [&](float* to, const float* from, int width, int start, int rows) __attribute__((noinline)) {
        const int row = PADDED(width);
        for (int r = 0; r < TILE; ++r, to += row) {
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
    // h[1] ... of h[0], and the slopes of the activations where they are wanted; the last layer's output if it is.
    auto ascend = [&](int last, bool slopes) {
        for (int k = 0; k < last; ++k) {
            const int row = pad[k + 1];
            product(TILE, row, width[k], h[k + 1], row, Matrix{bias[k], 0, 1}, Matrix{h[k], pad[k], 1}, up[k], row);
            if (k == layers - 1) break;
            float *a = h[k + 1], *s = slope[k + 1];
            if (softness > 0.0f) {
                NO_LOOP_VECTORS
                for (int i = 0; i < TILE * row; i += LANES) {
                    const vf v = READ(a + i), e = EXP2(ABS(v) * (-1.44269504f * softness));
                    WRITE(a + i, RELU(v) + sharpness * LOG_1_PLUS(e));
                    if (slopes) WRITE(s + i, SELECT(v > 0.0f, (vf)1.0f, e) / (1.0f + e));
                }
            } else {
                NO_LOOP_VECTORS
                for (int i = 0; i < TILE * row; i += LANES) {
                    const vf v = READ(a + i);
                    WRITE(a + i, RELU(v));
                    if (slopes) WRITE(s + i, SELECT(v > 0.0f, (vf)1.0f, (vf)0.0f));
                }
            }
        }
    };
    // q = slope p, for a row p that all points share (p_row 0) or for each point's own.
    auto scale = [&](float* q, const float* s, const float* p, int p_row, int row) {
        for (int r = 0; r < TILE; ++r, q += row, s += row, p += p_row)
            for (int c = 0; c < row; c += LANES) WRITE(q + c, READ(s + c) * READ(p + c));
    };
    const Matrix nothing = {nullptr, 0, 1};
"""
)


@wp.func_native(
    _LAYERS
    + """
    float* at_input = take(TILE * widest);
    for (int start = begin; start < end; start += TILE) {
        const int rows = end - start < TILE ? end - start : TILE;
        fetch(h[0], x.data, inputs, start, rows);
        ascend(layers, channel >= 0);
        deliver(out.data, h[layers], pad[layers], width[layers], start, rows);
        if (channel < 0) continue;
        const float* p = down[layers - 1] + channel * pad[layers - 1];
        int p_row = 0;
        for (int k = layers - 1; k > 0; --k) {
            scale(slope[k], slope[k], p, p_row, pad[k]);
            p_row = pad[k - 1];
            product(TILE, p_row, width[k], at_input, p_row, nothing, Matrix{slope[k], pad[k], 1}, down[k - 1], p_row);
            p = at_input;
        }
        deliver(gradient.data, p, p_row, inputs, start, rows);
    }
#endif
"""
)
def _output(
    strip: int,
    x: wp.array2d(dtype=float),
    parameters: wp.array(dtype=float),
    widths: wp.array(dtype=int),
    softness: float,
    channel: int,
    scratch: wp.array2d(dtype=float),
    out: wp.array2d(dtype=float),
    gradient: wp.array2d(dtype=float),
): ...


@wp.func_native(
    _LAYERS
    + """
    const bool second = grad_gradient.shape[0] > 0;
    float *q[MOST], *of_up[MOST], *of_bias[MOST];
    for (int k = 0; k <= layers; ++k) q[k] = take(TILE * pad[k]);
    for (int k = 0; k < layers; ++k) {
        of_up[k] = take(width[k] * pad[k + 1]); of_bias[k] = take(pad[k + 1]);
        for (int i = 0; i < width[k] * pad[k + 1]; ++i) of_up[k][i] = 0.0f;
        for (int i = 0; i < pad[k + 1]; ++i) of_bias[k][i] = 0.0f;
    }
    float *p = take(TILE * widest), *other = take(TILE * widest), *of_channel = take(widest);
    for (int c = 0; c < widest; ++c) of_channel[c] = 0.0f;
    auto add_up = [&](float* to, const float* from, int row) {
        for (int c = 0; c < row; c += LANES) {
            vf sum = READ(to + c);
            for (int r = 0; r < TILE; ++r) sum += READ(from + r * row + c);
            WRITE(to + c, sum);
        }
    };
    // The sum over points of what a weight's two ends say.
    auto weigh = [&](int k, const float* below, const float* above) {
        product(width[k], pad[k + 1], TILE, of_up[k], pad[k + 1], Matrix{of_up[k], pad[k + 1], 1},
                Matrix{below, 1, pad[k]}, above, pad[k + 1]);
    };
    for (int start = begin; start < end; start += TILE) {
        const int rows = end - start < TILE ? end - start : TILE;
        fetch(h[0], x.data, inputs, start, rows);
        ascend(layers - 1, true);
        if (second) {
            // Down: q, the gradient at what the activation of layer k sees.
            for (int k = layers - 1; k > 0; --k) {
                if (k == layers - 1) scale(q[k], slope[k], down[k] + channel * pad[k], 0, pad[k]);
                else {
                    product(TILE, pad[k], width[k + 1], p, pad[k], nothing, Matrix{q[k + 1], pad[k + 1], 1}, down[k],
                            pad[k]);
                    scale(q[k], slope[k], p, pad[k], pad[k]);
                }
            }
            // And up again, with what is wanted of the gradient at the input. What this says of the sum that the
            // activation sees, its second derivative times both sides, takes the place of q.
            fetch(p, grad_gradient.data, inputs, start, rows);
            for (int k = 0; k < layers - 1; ++k) {
                const int row = pad[k + 1];
                weigh(k, p, q[k + 1]);
                product(TILE, row, width[k], other, row, nothing, Matrix{p, pad[k], 1}, up[k], row);
                for (int i = 0; i < TILE * row; i += LANES) {
                    const vf s = READ(slope[k + 1] + i), r = READ(other + i);
                    WRITE(q[k + 1] + i, softness * (1.0f - s) * READ(q[k + 1] + i) * r);
                    WRITE(p + i, s * r);
                }
            }
            add_up(of_channel, p, pad[layers - 1]);
        }
        float *above = p, *below = other;
        const bool seen = grad_out.shape[0] > 0;
        fetch(above, grad_out.data, width[layers], start, seen ? rows : 0);
        for (int k = layers - 1; k >= 0; --k) {
            weigh(k, h[k], above);
            add_up(of_bias[k], above, pad[k + 1]);
            if (k == 0 && grad_x.shape[0] == 0) break;
            product(TILE, pad[k], width[k + 1], below, pad[k], nothing, Matrix{above, pad[k + 1], 1}, down[k], pad[k]);
            for (int i = 0; i < TILE * pad[k] && k > 0; i += LANES) {
                const vf v = READ(below + i) * READ(slope[k] + i);
                WRITE(below + i, second ? v + READ(q[k] + i) : v);
            }
            float* swap = above; above = below; below = swap;
        }
        if (grad_x.shape[0] > 0) deliver(grad_x.data, above, pad[0], inputs, start, rows);
    }
    float* to = sums.data + (size_t)strip * sums.shape[1];
    for (int k = 0; k < layers; ++k) {
        const int ins = width[k], outs = width[k + 1];
        for (int o = 0; o < outs; ++o)
            for (int i = 0; i < ins; ++i) to[o * ins + i] = of_up[k][i * pad[k + 1] + o];
        for (int i = 0; i < ins && second && k == layers - 1; ++i) to[channel * ins + i] += of_channel[i];
        to += ins * outs;
        for (int o = 0; o < outs; ++o) to[o] = of_bias[k][o];
        to += outs;
    }
#endif
"""
)
def _gradients(
    strip: int,
    x: wp.array2d(dtype=float),
    parameters: wp.array(dtype=float),
    widths: wp.array(dtype=int),
    softness: float,
    channel: int,
    grad_out: wp.array2d(dtype=float),
    grad_gradient: wp.array2d(dtype=float),
    scratch: wp.array2d(dtype=float),
    grad_x: wp.array2d(dtype=float),
    sums: wp.array2d(dtype=float),
): ...


@wp.kernel(enable_backward=False)
def _forward(
    first: int,
    x: wp.array2d(dtype=float),
    parameters: wp.array(dtype=float),
    widths: wp.array(dtype=int),
    softness: float,
    channel: int,
    scratch: wp.array2d(dtype=float),
    out: wp.array2d(dtype=float),
    gradient: wp.array2d(dtype=float),
):
    _output(first + wp.tid(), x, parameters, widths, softness, channel, scratch, out, gradient)


@wp.kernel(enable_backward=False)
def _backward(
    first: int,
    x: wp.array2d(dtype=float),
    parameters: wp.array(dtype=float),
    widths: wp.array(dtype=int),
    softness: float,
    channel: int,
    grad_out: wp.array2d(dtype=float),
    grad_gradient: wp.array2d(dtype=float),
    scratch: wp.array2d(dtype=float),
    grad_x: wp.array2d(dtype=float),
    sums: wp.array2d(dtype=float),
):
    _gradients(
        first + wp.tid(), x, parameters, widths, softness, channel, grad_out, grad_gradient, scratch, grad_x, sums
    )
