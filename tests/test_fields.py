"""Networks and encodings: gradients against automatic differentiation in float64, initial shapes, agreement."""

import pytest
import torch
from torch import Tensor

from models.fields.activations import softplus
from models.fields.base import Encoding, Field, FieldConfig
from models.fields.frequency import FrequencyConfig
from models.fields.hash_grid import HashGridConfig
from models.fields.mlp import Mlp, MlpConfig
from models.fields.outside import OutsideConfig
from models.fields.sdf import SdfConfig
from models.fields.spherical_harmonics import SphericalHarmonicsConfig
from utils.parts import parts

SMALL_GRID = HashGridConfig(levels=4, top=64, log2_rows=10, initial=0.1)
SMALL_SDF = {"geometry": MlpConfig(layers=2, width=32, activation="softplus"), "features": 4}
FIELDS: dict[str, FieldConfig] = {
    "sdf, frequencies": SdfConfig(**SMALL_SDF, color=MlpConfig(layers=1, width=16)),
    "sdf, skip and weight norm": SdfConfig(
        geometry=MlpConfig(layers=4, width=48, skip=(2,), activation="softplus", weight_norm=True), features=4
    ),
    "sdf, hash grid": SdfConfig(encoding=SMALL_GRID, **SMALL_SDF, feature_scale=1.0),
    "outside, frequencies": OutsideConfig(density=MlpConfig(layers=2, width=32), features=8),
    "outside, hash grid": OutsideConfig(encoding=SMALL_GRID, density=MlpConfig(layers=1, width=32), features=8),
}


def points(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def directions(count: int) -> Tensor:
    return torch.nn.functional.normalize(points(count, seed=9), dim=-1)


def built(name: str) -> Field:
    torch.manual_seed(0)
    return FIELDS[name].build()


def test_softplus_and_its_slope_have_the_right_values_and_derivatives() -> None:
    x = torch.cat([torch.linspace(-2, 2, 81), torch.linspace(-0.05, 0.05, 41)]).double().requires_grad_()
    value, slope = softplus(x)
    torch.testing.assert_close(value, torch.nn.functional.softplus(x, beta=100), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(slope, torch.sigmoid(100 * x), atol=1e-12, rtol=1e-9)
    assert torch.autograd.gradcheck(softplus, (torch.linspace(-0.1, 0.1, 21).double().requires_grad_(),))


@pytest.mark.parametrize("skip", [(), (2,), (1, 3)])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_mlp_pullback_and_its_gradients(skip: tuple[int, ...], weight_norm: bool) -> None:
    torch.manual_seed(0)
    config = MlpConfig(layers=4, width=16, skip=skip, activation="softplus", weight_norm=weight_norm)
    mlp = Mlp(5, 3, config).double()
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    output, pullback = mlp.with_pullback(x)
    torch.testing.assert_close(output, mlp(x))
    for channel in range(3):
        plain = torch.autograd.grad(slow_mlp(mlp, x)[:, channel].sum(), x, create_graph=True)[0]
        torch.testing.assert_close(pullback(channel), plain, atol=1e-12, rtol=1e-9)
        weights = [*mlp.parameters()]
        mine = torch.autograd.grad(pullback(channel).square().sum(), weights, retain_graph=True, allow_unused=True)
        truth = torch.autograd.grad(plain.square().sum(), weights, allow_unused=True)
        for a, b in zip(mine, truth, strict=True):
            torch.testing.assert_close(none_is_zero(a), none_is_zero(b), atol=1e-9, rtol=1e-7)


def none_is_zero(x: Tensor | None) -> Tensor:
    return torch.zeros(()) if x is None or not x.any() else x


def slow_mlp(mlp: Mlp, x: Tensor) -> Tensor:
    """The same network written with torch's softplus, so that torch differentiates it twice."""
    h = x
    for i, layer in enumerate(mlp.linears()):
        if i in mlp.skip:
            h = torch.cat([h, x], -1) / 2**0.5
        h = torch.nn.functional.linear(h, layer.weight(), layer.bias)
        if i < len(mlp.layers) - 1:
            h = torch.nn.functional.softplus(h, beta=100, threshold=1e9)
    return h


def test_mlp_tiles_do_not_change_the_output() -> None:
    torch.manual_seed(0)
    mlp = Mlp(3, 2, MlpConfig(layers=2, width=8))
    x = torch.randn(3, 3000, 3)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), mlp._forward(x), atol=1e-6, rtol=1e-5)


def test_frequencies_and_their_pullback() -> None:
    encoding = FrequencyConfig(levels=3).build()
    x = points(6).double().requires_grad_()
    features, pullback = encoding.with_pullback(x)
    assert features.shape == (6, encoding.width) == (6, 21)
    torch.testing.assert_close(features[:, 3:6], torch.sin(x))
    torch.testing.assert_close(features[:, 18:21], torch.cos(4 * x))
    weight = torch.randn(6, 21, dtype=torch.float64)
    truth = torch.autograd.grad((features * weight).sum(), x)[0]
    torch.testing.assert_close(pullback(weight), truth)


def test_hash_grid_pullback_and_coarse_to_fine() -> None:
    torch.manual_seed(0)
    encoding = SMALL_GRID.build()
    x = points(50).requires_grad_()
    features, pullback = encoding.with_pullback(x)
    torch.testing.assert_close(features, encoding(x))
    weight = torch.randn(50, encoding.width)
    truth = torch.autograd.grad((features * weight).sum(), x)[0]
    torch.testing.assert_close(pullback(weight), truth, atol=1e-4, rtol=1e-4)
    encoding.active = 2
    assert (encoding(x)[:, 3 + 4 :] == 0).all() and (encoding(x)[:, 3 : 3 + 4] != 0).any()


def test_spherical_harmonics_are_orthonormal() -> None:
    """Sums over a Fibonacci sphere of half a million points stand for the integrals."""
    count = 500_000
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / count
    angle = torch.pi * (1 + 5**0.5) * i
    radius = (1 - z * z).sqrt()
    x = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
    y = SphericalHarmonicsConfig(degree=3).build()(x)
    gram = y.T @ y * (4 * torch.pi / count)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FIELDS)
def test_value_agrees_with_the_whole_sample(name: str) -> None:
    field = built(name)
    x = points(20) * (3.0 if name.startswith("outside") else 1.0)
    sample = field(x, directions(20))
    torch.testing.assert_close(field.value(x), sample.value, atol=1e-5, rtol=1e-5)
    assert sample.color.shape == (20, 3) and ((sample.color >= 0) & (sample.color <= 1)).all()
    assert field(x[:0], directions(20)[:0]).color.shape == (0, 3)


@pytest.mark.parametrize("name", [name for name in FIELDS if name.startswith("sdf")])
def test_gradient_against_finite_differences(name: str) -> None:
    field = built(name)
    x = points(200)
    gradient = field.gradient(x)
    assert gradient is not None
    step = 2e-4
    columns = [(field.value(x + d) - field.value(x - d)) / (2 * step) for d in torch.eye(3) * step]
    difference = (torch.stack(columns, -1) - gradient).norm(dim=-1)
    # Grids are piecewise: a step across a cell's wall sees two slopes.
    assert difference.median() < 5e-3 and difference.quantile(0.9) < 0.05


@pytest.mark.parametrize("inside_out", [False, True])
def test_the_published_network_starts_as_a_sphere(inside_out: bool) -> None:
    """(f + radius) / |x| is 1 up to the noise of eight random layers: relative variance about 8 * 5 / (4 * 256)."""
    ratios = []
    for seed in range(8):
        torch.manual_seed(seed)
        field = SdfConfig(radius=0.5, inside_out=inside_out).build()
        sign = -1 if inside_out else 1
        x = points(500, seed=seed)
        assert (sign * field.value(torch.zeros(1, 3)) < 0).all()
        ratios.append((sign * field.value(x).detach() + 0.5) / x.norm(dim=-1))
    ratio = torch.cat(ratios)
    assert abs(ratio.mean() - 1) < 0.1 and ratio.std() < 0.3


def test_an_eikonal_loss_trains_the_table() -> None:
    """Double backward through network and grid: against finite differences of the loss in the table."""
    torch.manual_seed(0)
    field = FIELDS["sdf, hash grid"].build()
    x = points(40)

    def loss() -> Tensor:
        gradient = field.gradient(x)
        assert gradient is not None
        return (gradient.norm(dim=-1) - 1).square().mean()

    table = field.get_parameter("encoding.table")
    slope = torch.autograd.grad(loss(), table)[0]
    direction = slope / slope.norm()
    step = 1e-3
    with torch.no_grad():
        table.add_(step * direction)
        above = loss().item()
        table.sub_(2 * step * direction)
        below = loss().item()
    assert (above - below) / (2 * step) == pytest.approx(slope.norm().item(), rel=2e-2)


def test_the_outside_field_sees_the_inverted_sphere() -> None:
    """Beyond the sphere x and s x differ in 1/r only; inside, points count as on the sphere."""
    field = built("outside, frequencies")
    x = directions(10)
    torch.testing.assert_close(field.value(x * 0.3), field.value(x), atol=1e-5, rtol=1e-5)
    assert (field.value(x * 3) - field.value(x)).abs().max() > 1e-4


def test_every_part_of_the_folder_is_tested_here() -> None:
    import experiment  # noqa: F401  (discovers the parts)
    from models.fields.base import EncodingConfig, FieldConfig

    used = {type(config) for config in FIELDS.values()} | {FrequencyConfig, HashGridConfig, SphericalHarmonicsConfig}
    assert set(parts(FieldConfig).values()) | set(parts(EncodingConfig).values()) == used
    assert issubclass(type(SMALL_GRID.build()), Encoding)
