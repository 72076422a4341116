"""Multi-layer perceptrons with their input gradient by one reverse sweep.

`with_gradient` returns the output and the gradient of one of its channels at the input; both are ordinary
differentiable results, so that a loss on the gradient (eikonal) trains the weights with a single backward pass: 3
forward and 3 reverse products per layer instead of the 6 and 3 of nested automatic differentiation.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import cast

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.kernels.networks.mlp import ACTIVATIONS as KNOWN
from models.kernels.networks.mlp import NARROW, WIDEST, mlp, mlp_forward
from models.networks.activations import BETA, ActivationName, activation, value_only
from utils.config.parts import StrictModel
from utils.errors import InputError
from utils.precision import fast_products

TILE = {"cpu": 4096, "cuda": 1 << 18}  # rows whose activations stay in a core's cache, or fit a GPU's memory


class MlpConfig(StrictModel):
    """A network: `layers` hidden layers of `width`."""

    layers: int = Field(8, ge=1, le=32, description="hidden layers")
    width: int = Field(256, ge=1, le=4096)
    skip: tuple[int, ...] = Field((), description="hidden layers (1 ... layers - 1) that see the input again")
    activation: ActivationName = "relu"
    omega: float = Field(30.0, gt=0, description="frequency of a sine activation")
    weight_norm: bool = False

    @field_validator("skip")
    @classmethod
    def _skips_are_hidden_layers(cls, skip: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        layers = info.data.get("layers", 0)
        if any(not 1 <= i < layers for i in skip):
            raise ValueError(f"skip layers lie between 1 and layers - 1 = {layers - 1}")
        return skip


class Linear(nn.Module):
    """x W^T + b, optionally with weight normalization (Salimans and Kingma 2016)."""

    def __init__(self, inputs: int, outputs: int, *, weight_norm: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.direction = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.length = nn.Parameter(self.direction.detach().norm(dim=1, keepdim=True)) if weight_norm else None

    def weight(self) -> Tensor:
        """[O, I], the weight in effect, O outputs by I inputs. Differentiable in the parameters."""
        if self.length is None:
            return self.direction
        return self.direction * (self.length / self.direction.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Initialize to a given weight [O, I] and bias [O]."""
        self.direction.copy_(weight)
        self.bias.copy_(bias)
        if self.length is not None:
            self.length.copy_(weight.norm(dim=1, keepdim=True))


class Mlp(nn.Module):
    """[*N, inputs] -> [*N, outputs]. The input to a skip layer is [hidden, input] / sqrt(2), as in IDR."""

    def __init__(self, inputs: int, outputs: int, config: MlpConfig) -> None:
        super().__init__()
        self.inputs, self.skip = inputs, config.skip
        self.activation = activation(config.activation, omega=config.omega)
        self.value_only = value_only(config.activation, self.activation)
        self.activation_name = config.activation
        self.mixed = False  # in training, matrix products in bfloat16
        self.mixed_vjp = False  # those of the gradient at the input
        if config.skip and config.width <= inputs:
            raise InputError(
                f"a network of width {config.width} with skip {list(config.skip)} - its input of {inputs} numbers"
                f" leaves no room - expected a width above {inputs}, or skip: []"
            )
        widths = [inputs] + [config.width] * config.layers
        self.layers = nn.ModuleList()
        for i in range(config.layers + 1):
            ahead = outputs if i == config.layers else config.width - (inputs if i + 1 in config.skip else 0)
            self.layers.append(Linear(widths[i], ahead, weight_norm=config.weight_norm))
        self.widest = max(max(layer.direction.shape) for layer in self.linears())
        if config.activation == "sine":
            sine_initialization(self, omega=config.omega)

    def linears(self) -> list[Linear]:
        """The layers, input to output."""
        return cast(list[Linear], list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """[*N, I] -> [*N, O]. Differentiable in x and the parameters, once; without gradients as `without_graph`.

        Raises ValueError for another width than I.
        """
        if not torch.is_grad_enabled():
            return self.without_graph(x)
        if self._in_tiles(x, NARROW):
            return self._by_kernel(x, None)[0]
        if self.mixed and x.device.type == "cuda":
            with torch.autocast("cuda", torch.bfloat16):
                return self._forward(x).float()
        if self.mixed:
            with fast_products(x.device.type):
                return self._forward(x)
        return self._forward(x)

    def kept(self, *, gradient: bool = False) -> int:
        """Numbers of a point that stay for the backward pass. gradient: of the pass of `with_gradient`."""
        shapes = [layer.direction.shape for layer in self.linears()]
        hidden, outside = sum(outs for outs, _ in shapes[:-1]), self.inputs + shapes[-1][0]
        if self.by_products:  # before and behind each activation; its slopes, and what is swept back through them
            return outside + (4 if gradient else 2) * hidden
        return outside + hidden + self.inputs * gradient

    @property
    def by_products(self) -> bool:
        """Whether it is trained with torch's matrix products, layer by layer, instead of a kernel."""
        return not self._known(NARROW)

    def _known(self, widest: int) -> bool:
        """Whether the kernel for networks of layers up to `widest` can compute this one."""
        return self.widest <= widest and self.activation_name in KNOWN

    def _in_tiles(self, x: Tensor, widest: int) -> bool:
        """Whether that kernel takes all of it, tile by tile; a GPU's tiles are those of narrow networks."""
        return self._known(widest if x.device.type == "cpu" else min(widest, NARROW)) and x.dtype == torch.float32

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.inputs:  # a kernel would read beyond the rows
            raise ValueError(f"a network of {self.inputs} inputs was given {x.shape[-1]}")
        return x.reshape(-1, self.inputs)

    def _parameters_in_effect(self) -> tuple[list[Tensor], list[Tensor]]:
        return [layer.weight() for layer in self.linears()], [layer.bias for layer in self.linears()]

    def _by_kernel(self, x: Tensor, channel: int | None) -> tuple[Tensor, Tensor | None]:
        rows, (weights, biases) = self._rows(x), self._parameters_in_effect()
        out, gradient = mlp(rows, weights, biases, activation=self.activation_name, beta=BETA, channel=channel)
        out = out.reshape(*x.shape[:-1], out.shape[-1])
        return out, None if gradient is None else gradient.reshape(x.shape)

    @torch.no_grad()
    def without_graph(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """[*N, I] -> [*N, O], the first `outputs` outputs (None: all). In tiles that fit a cache; no gradient."""
        rows = self._rows(x)
        if self._in_tiles(x, WIDEST):
            weights, biases = self._parameters_in_effect()
            weights[-1], biases[-1] = weights[-1][:outputs], biases[-1][:outputs]
            out = mlp_forward(rows, weights, biases, activation=self.activation_name, beta=BETA)
        else:
            out = torch.cat([self._forward(tile)[:, :outputs] for tile in rows.split(TILE[x.device.type])])
        return out.reshape(*x.shape[:-1], out.shape[-1])

    def _forward(self, x: Tensor) -> Tensor:
        h = x
        for i, layer in enumerate(self.linears()):
            if i in self.skip:
                h = torch.cat([h, x], -1) / math.sqrt(2)
            h = F.linear(h, layer.weight(), layer.bias)
            if i < len(self.layers) - 1:
                h = self.value_only(h)
        return h

    def with_gradient(self, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """[*N, I] -> the output [*N, O] and the gradient [*N, I] of one of its channels at x.

        Differentiable in x and the parameters, once.
        """
        if self._in_tiles(x, NARROW):
            out, gradient = self._by_kernel(x, channel)
            assert gradient is not None
            return out, gradient
        h, slopes, weights = x, [], []
        for i, layer in enumerate(self.linears()):
            if i in self.skip:
                h = torch.cat([h, x], -1) / math.sqrt(2)
            weights.append(layer.weight())
            h = F.linear(h, weights[-1], layer.bias)
            if i < len(self.layers) - 1:
                h, slope = self.activation(h)
                slopes.append(slope)
        with fast_products(x.device.type) if self.mixed_vjp else nullcontext():
            return h, self._sweep(weights, slopes, channel)

    def _sweep(self, weights: list[Tensor], slopes: list[Tensor], channel: int) -> Tensor:
        g, at_input = weights[-1][channel], None
        for i in range(len(weights) - 1, -1, -1):
            if i < len(weights) - 1:
                g = (slopes[i] * g) @ weights[i]
            if i in self.skip:
                g = g / math.sqrt(2)
                skipped = g[..., -self.inputs :]
                at_input = skipped if at_input is None else at_input + skipped
                g = g[..., : -self.inputs]
        return g if at_input is None else g + at_input


def kept_by_networks(part: nn.Module, *, gradient: bool = False) -> int:
    """Numbers of a point that a part's own networks keep; see `Mlp.kept`. Those of its encodings see other points."""
    return sum(child.kept(gradient=gradient) for child in part.children() if isinstance(child, Mlp))


@torch.no_grad()
def sine_initialization(mlp: Mlp, *, omega: float) -> None:
    """Weights that keep the distribution of activations through sine layers; biases as torch draws them.

    Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions" (2020), section 3.2.
    """
    for i, layer in enumerate(mlp.linears()):
        inputs = layer.direction.shape[1]
        bound = 1 / inputs if i == 0 else math.sqrt(6 / inputs) / omega
        layer.set(torch.empty_like(layer.direction).uniform_(-bound, bound), layer.bias)


@torch.no_grad()
def geometric_initialization(mlp: Mlp, *, radius: float, inside_out: bool, feature_scale: float) -> None:
    """Make output 0 of a softplus network about |x| - radius (minus that, seen from inside a room).

    The first 3 inputs are the raw coordinates. All other inputs (of the first and of the skip layers) start with
    weights of the published distribution times `feature_scale`: 0 for sines and cosines, as published.
    Atzmon and Lipman, "SAL" (2020); Gropp et al., "IGR" (2020); weights as in IDR, NeuS, VolSDF and UNISURF.
    """
    last = len(mlp.layers) - 1
    for i, layer in enumerate(mlp.linears()):
        outputs, inputs = layer.direction.shape
        if i == last:
            sign = -1.0 if inside_out else 1.0
            weight = torch.randn(outputs, inputs) * 1e-4 + sign * math.sqrt(math.pi / inputs)
            layer.set(weight, torch.full((outputs,), -sign * radius))
            continue
        weight = torch.randn(outputs, inputs) * math.sqrt(2 / outputs)
        if i == 0:
            weight[:, 3:] *= feature_scale
        elif i in mlp.skip:
            weight[:, inputs - (mlp.inputs - 3) :] *= feature_scale
        layer.set(weight, torch.zeros(outputs))


@torch.no_grad()
def level_initialization(mlp: Mlp, *, feature_scale: float) -> None:
    """Make output 0 of a softplus or relu network the third coordinate: the distance from the plane z = 0.

    Hidden neurons come in pairs of opposite weights, whose activations differ by exactly what a linear layer would
    give: act(a) - act(-a) = a. Inputs and their weights as in `geometric_initialization`.
    """
    last = len(mlp.layers) - 1
    linear = torch.eye(3)  # [I, 3]: the pairs' differences as functions of the coordinates
    for i, layer in enumerate(mlp.linears()):
        outputs, inputs = layer.direction.shape
        half, weight = outputs // 2, torch.randn(outputs, inputs) * 1e-4  # for neurons without a partner, never read
        if i in mlp.skip:
            linear = linear / math.sqrt(2)
        if i == last:
            # In float64: the last digit of a float32 solution depends on where the matrix lies in memory.
            target = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
            row = torch.linalg.lstsq(linear.T.double(), target).solution[:, 0].float()
            weight[0] = 0.0
        else:
            weight[: 2 * half] = 0.0
            row = torch.randn(half, linear.shape[0]) * math.sqrt(2 / linear.shape[0])
            linear = row @ linear
        weight[: 1 if i == last else half, : row.shape[-1]] = row
        if i == 0:
            weight[:half, 3:] = torch.randn(half, inputs - 3) * math.sqrt(2 / outputs) * feature_scale
        else:
            count = row.shape[-1]
            weight[: 1 if i == last else half, count : 2 * count] = -row
        if i < last:
            weight[half : 2 * half] = -weight[:half]
        layer.set(weight, torch.zeros(outputs))
