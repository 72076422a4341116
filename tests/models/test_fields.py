"""Networks and encodings: gradients against automatic differentiation in float64, initial shapes, agreement."""

import pytest
import torch
from torch import Tensor

from models.appearance.mlp import MlpAppearanceConfig, to_color
from models.capabilities import GRADIENT, offered
from models.encodings.base import Encoding
from models.encodings.dense_grid import DenseGridConfig
from models.encodings.frequency import FrequencyConfig
from models.encodings.hash_grid import HashGridConfig, LevelsConfig, LevelTable
from models.encodings.linked_voxels import LinkedVoxelsConfig
from models.encodings.nsvf import NsvfConfig
from models.encodings.octree_blocks import OctreeBlocksConfig
from models.encodings.permutohedral import PermutohedralConfig
from models.encodings.spherical_harmonics import SphericalHarmonicsConfig
from models.encodings.tensor_cp import TensorCpConfig
from models.encodings.tensor_vm import TensorVmConfig
from models.encodings.voxel_grid import VoxelGridConfig
from models.encodings.voxel_octree import OctreeConfig
from models.fields.base import Field, FieldConfig
from models.fields.occupancy import OccupancyFieldConfig
from models.fields.outside import OutsideConfig
from models.fields.outside_sdf import OutsideSdfConfig
from models.fields.radiance import RadianceFieldConfig
from models.fields.sdf import NumericalGradient, Sdf, SdfConfig, Wall
from models.fields.voxels import VoxelsConfig
from models.kernels.networks.color_inputs import mirrored
from models.networks.activations import ACTIVATIONS, RandomizedRelu, activation, softplus
from models.networks.mlp import Mlp, MlpConfig
from models.samples import Points
from models.volume import Volume, VolumeConfig
from utils.config.parts import discover, parts

for package in ("opacities", "appearance"):
    discover(f"models.{package}")
SMALL_GRID = HashGridConfig(levels=4, top=64, log2_rows=10, initial=0.1)
SIMPLICES = PermutohedralConfig(levels=4, top=64, log2_rows=10, initial=0.1)
SMALL_SDF = {"geometry": MlpConfig(layers=2, width=32, activation="softplus"), "features": 4}
SIREN = MlpConfig(layers=3, width=64, activation="sine", weight_norm=True)
DENSE_GRID = DenseGridConfig(resolutions=(4, 9), features=4, initial=0.1)
PLANES, LINES = TensorVmConfig(cells=9, components=4), TensorCpConfig(cells=9, components=16, initial=0.5)
VOXELS = VoxelGridConfig(cells=9, components=3, initial=0.1)
BLOCKS = OctreeBlocksConfig(
    blocks=64, first=1, deepest=2, corners=4, features=5, network=MlpConfig(layers=1, width=16)
)
OCTREE, SPARSE = OctreeConfig(voxels=9, components=4), NsvfConfig(voxels=9, components=4, octaves=2, initial=0.5)
NERF = MlpAppearanceConfig(network=MlpConfig(layers=1, width=128))
FIELDS: dict[str, FieldConfig] = {
    "sdf, frequencies": SdfConfig(**SMALL_SDF),
    "sdf, skip and weight norm": SdfConfig(
        geometry=MlpConfig(layers=4, width=48, skip=(2,), activation="softplus", weight_norm=True), features=4
    ),
    "sdf, hash grid": SdfConfig(encoding=SMALL_GRID, **SMALL_SDF, feature_scale=1.0),
    "sdf, dense grid": SdfConfig(encoding=DENSE_GRID, **SMALL_SDF, feature_scale=1.0),
    "sdf, permutohedral": SdfConfig(encoding=SIMPLICES, **SMALL_SDF, feature_scale=1.0),
    "sdf, sines": SdfConfig(encoding=FrequencyConfig(levels=0), geometry=SIREN, features=4, radius=0.4),
    "sdf, wall": SdfConfig(**SMALL_SDF, wall=Wall(radius=0.7)),
    "sdf, 6 taps": SdfConfig(encoding=SMALL_GRID, **SMALL_SDF, feature_scale=1.0, numerical={"step": 3e-4}),
    "sdf, 4 taps": SdfConfig(**SMALL_SDF, numerical=NumericalGradient(taps=4)),
    "occupancy, frequencies": OccupancyFieldConfig(**SMALL_SDF),
    "radiance, frequencies": RadianceFieldConfig(density=MlpConfig(layers=3, width=96, skip=(2,)), features=8),
    "radiance, dense grid": RadianceFieldConfig(encoding=DENSE_GRID, density=MlpConfig(layers=1, width=32), features=8),
    "voxels, a network's features": VoxelsConfig(density=DENSE_GRID, colors=SMALL_GRID, features=5),
    "voxels, planes": VoxelsConfig(density=PLANES, colors=PLANES),
    "sdf, planes": SdfConfig(encoding=PLANES, **SMALL_SDF, feature_scale=1.0),
    "sdf, lines": SdfConfig(encoding=LINES, **SMALL_SDF, feature_scale=1.0),
    "sdf, an octree": SdfConfig(encoding=OCTREE, **SMALL_SDF, feature_scale=1.0),
    "radiance, sparse voxels": RadianceFieldConfig(
        encoding=SPARSE, density=MlpConfig(layers=1, width=32, activation="softplus"), features=8
    ),
    "radiance, voxels": RadianceFieldConfig(encoding=VOXELS, density=MlpConfig(layers=1, width=32), features=8),
    "sdf, blocks": SdfConfig(encoding=BLOCKS, **SMALL_SDF, feature_scale=1.0),
    "radiance, blocks": RadianceFieldConfig(encoding=BLOCKS, density=MlpConfig(layers=1, width=32), features=8),
    "outside, frequencies": OutsideConfig(density=MlpConfig(layers=2, width=32), features=8),
    "outside, hash grid": OutsideConfig(encoding=SMALL_GRID, density=MlpConfig(layers=1, width=32), features=8),
}


def points(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def directions(count: int) -> Tensor:
    return torch.nn.functional.normalize(points(count, seed=9), dim=-1)


def of(config: FieldConfig) -> Field:
    """A field with its first values."""
    field = config.build()
    field.reset_parameters()
    return field


def built(name: str) -> Field:
    torch.manual_seed(0)
    return of(FIELDS[name])


def volume(name: str) -> Volume:
    """A field of FIELDS with a color network."""
    field = FIELDS[name]
    kind = {"sdf": "logistic"}.get(field.value_kind.name, "density")
    appearance = {"type": "mlp", "network": {"layers": 1, "width": 16}}
    torch.manual_seed(0)
    return Volume(VolumeConfig.model_validate({"field": field, "appearance": appearance, "opacity": {"type": kind}}))


def test_softplus_and_its_slope_have_the_right_values_and_derivatives() -> None:
    x = torch.cat([torch.linspace(-2, 2, 81), torch.linspace(-0.05, 0.05, 41)]).double().requires_grad_()
    value, slope = softplus(x)
    torch.testing.assert_close(value, torch.nn.functional.softplus(x, beta=100), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(slope, torch.sigmoid(100 * x), atol=1e-12, rtol=1e-9)
    assert torch.autograd.gradcheck(softplus, (torch.linspace(-0.1, 0.1, 21).double().requires_grad_(),))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_and_its_slope(name: str) -> None:
    """Slope and derivatives of both outputs against finite differences in float64, away from kinks."""
    x = torch.tensor([-0.9, -0.31, -0.02, 0.013, 0.4, 1.1], dtype=torch.float64, requires_grad=True)
    function = activation(name)  # type: ignore[arg-type]
    value, slope = function(x)
    truth = torch.autograd.grad(value.sum(), x, retain_graph=True)[0]
    torch.testing.assert_close(slope, truth, atol=1e-12, rtol=1e-9)
    step = 1e-6
    with torch.no_grad():
        (above, _), (below, _) = function(x + step), function(x - step)
    torch.testing.assert_close((above - below) / (2 * step), slope.detach(), atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradcheck(function, (x,), eps=1e-7, atol=1e-3, rtol=1e-4)


def test_the_activations_that_draw_or_cut() -> None:
    x = torch.linspace(-2, 2, 1001)
    leaky = RandomizedRelu()
    value, slope = leaky(x)
    assert torch.equal(value, x * slope) and (slope[x > 0] == 1).all()
    below = slope[x < 0]
    assert below.min() >= 1 / 8 and below.max() <= 1 / 3 and below.std() > 0.03
    assert (leaky.eval()(x)[1][x < 0] == torch.tensor((1 / 8 + 1 / 3) / 2)).all()
    value, slope = activation("exp")(torch.tensor([20.0, 1.0]))
    assert value[0] == torch.tensor(15.0).exp() and slope[0] == 0 and value[1] == slope[1] == torch.tensor(1.0).exp()
    torch.testing.assert_close(to_color(x, "tanh"), 0.5 + 0.5 * torch.tanh(x))
    assert isinstance(Mlp(3, 1, MlpConfig(layers=1, width=4, activation="rrelu")).activation, RandomizedRelu)


@pytest.mark.parametrize("name", ["sine", "exp"])
def test_a_loss_on_the_gradient_of_other_networks(name: str) -> None:
    """Double backward through network and slope against torch's own, in float64."""
    torch.manual_seed(0)
    mlp = Mlp(3, 2, MlpConfig(layers=2, width=8, activation=name, weight_norm=True, omega=7.0)).double()
    x = points(9).double().requires_grad_()
    layers, function = mlp.linears(), (lambda y: torch.sin(7 * y)) if name == "sine" else torch.exp
    h = x
    for layer in layers[:-1]:
        h = function(torch.nn.functional.linear(h, layer.weight(), layer.bias))
    plain = torch.nn.functional.linear(h, layers[-1].weight(), layers[-1].bias)
    truth = torch.autograd.grad(plain[:, 0].sum(), x, create_graph=True)[0]
    output, gradient = mlp.with_gradient(x, 0)
    torch.testing.assert_close(output, plain)
    torch.testing.assert_close(gradient, truth, atol=1e-12, rtol=1e-9)
    weights = [*mlp.parameters()]
    mine = torch.autograd.grad(gradient.square().sum(), weights, allow_unused=True)
    for a, b in zip(mine, torch.autograd.grad(truth.square().sum(), weights, allow_unused=True), strict=True):
        torch.testing.assert_close(none_is_zero(a), none_is_zero(b), atol=1e-9, rtol=1e-7)


def test_sine_networks_keep_their_distribution() -> None:
    """Through every layer the angles have a standard deviation near 1 or more, none dies out (SIREN, theorem 1.8)."""
    torch.manual_seed(0)
    mlp = Mlp(3, 1, MlpConfig(layers=5, width=256, activation="sine"))
    h = points(2000)
    for layer in mlp.linears()[:-1]:
        h = torch.sin(30 * torch.nn.functional.linear(h, layer.weight(), layer.bias))
        assert 0.6 < float(h.detach().std()) < 0.8


@pytest.mark.parametrize("skip", [(), (2,), (1, 3)])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_the_gradient_of_a_network_and_its_gradients(skip: tuple[int, ...], weight_norm: bool) -> None:
    torch.manual_seed(0)
    config = MlpConfig(layers=4, width=16, skip=skip, activation="softplus", weight_norm=weight_norm)
    mlp = Mlp(5, 3, config).double()
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    for channel in range(3):
        output, gradient = mlp.with_gradient(x, channel)
        torch.testing.assert_close(output, mlp(x))
        plain = torch.autograd.grad(slow_mlp(mlp, x)[:, channel].sum(), x, create_graph=True)[0]
        torch.testing.assert_close(gradient, plain, atol=1e-12, rtol=1e-9)
        weights = [*mlp.parameters()]
        mine = torch.autograd.grad(gradient.square().sum(), weights, allow_unused=True)
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
    features, vjp = encoding.with_vjp(x)
    assert features.shape == (6, encoding.width) == (6, 21)
    torch.testing.assert_close(features[:, 3:6], torch.sin(x))
    torch.testing.assert_close(features[:, 18:21], torch.cos(4 * x))
    weight = torch.randn(6, 21, dtype=torch.float64)
    truth = torch.autograd.grad((features * weight).sum(), x)[0]
    torch.testing.assert_close(vjp(weight), truth)


@pytest.mark.parametrize("config", [SMALL_GRID, SIMPLICES])
def test_pullback_and_coarse_to_fine_of_tables(config: LevelsConfig) -> None:
    torch.manual_seed(0)
    encoding = config.build()
    assert isinstance(encoding, LevelTable)
    x = points(50).requires_grad_()
    features, vjp = encoding.with_vjp(x)
    torch.testing.assert_close(features, encoding(x))
    weight = torch.randn(50, encoding.width)
    truth = torch.autograd.grad((features * weight).sum(), x)[0]
    torch.testing.assert_close(vjp(weight), truth, atol=1e-4, rtol=1e-4)
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
    y = SphericalHarmonicsConfig(degree=3).build()(x.float()).double()
    gram = y.T @ y * (4 * torch.pi / count)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FIELDS)
def test_value_agrees_with_the_whole_sample(name: str) -> None:
    both = volume(name)
    x = points(20) * (3.0 if name.startswith("outside") else 1.0)
    sample, color = both.look(Points(x, directions(20)))
    torch.testing.assert_close(both.value(x), sample.value, atol=1e-5, rtol=1e-5)
    assert color.shape == (20, 3) and ((color >= 0) & (color <= 1)).all()
    assert sample.features.shape == (20, both.field.features)
    assert (sample.gradient is not None) == both.field.has_gradient == (GRADIENT in offered(FIELDS[name]))
    assert both.look(Points(x[:0], directions(20)[:0]))[1].shape == (0, 3)


@pytest.mark.parametrize("name", [name for name in FIELDS if name.startswith(("sdf", "occupancy"))])
def test_gradient_against_finite_differences(name: str) -> None:
    field = built(name)
    if "taps" in name:
        field.update(1.0)  # the smallest step
    x = points(200)
    gradient = field.gradient(x)
    assert gradient is not None
    torch.testing.assert_close(field(Points(x, directions(200))).gradient, gradient)
    step = 2e-4
    columns = [(field.value(x + d) - field.value(x - d)) / (2 * step) for d in torch.eye(3) * step]
    difference = (torch.stack(columns, -1) - gradient).norm(dim=-1)
    # Grids are piecewise: a step across a cell's wall sees two slopes.
    scale = gradient.norm(dim=-1).mean()
    assert difference.median() < 5e-3 * scale and difference.quantile(0.9) < 0.05 * scale


@pytest.mark.parametrize("inside_out", [False, True])
def test_the_published_network_starts_as_a_sphere(inside_out: bool) -> None:
    """(f + radius) / |x| is 1 up to the noise of eight random layers: relative variance about 8 * 5 / (4 * 256)."""
    ratios = []
    for seed in range(8):
        torch.manual_seed(seed)
        field = of(SdfConfig(radius=0.5, inside_out=inside_out))
        sign = -1 if inside_out else 1
        x = points(500, seed=seed)
        assert (sign * field.value(torch.zeros(1, 3)) < 0).all()
        ratios.append((sign * field.value(x).detach() + 0.5) / x.norm(dim=-1))
    ratio = torch.cat(ratios)
    assert abs(ratio.mean() - 1) < 0.1 and ratio.std() < 0.3


@pytest.mark.parametrize(
    "geometry",
    [
        MlpConfig(layers=1, width=64, activation="softplus"),
        MlpConfig(layers=3, width=33),
        MlpConfig(layers=8, width=256, skip=(4,), activation="softplus", weight_norm=True),
    ],
)
def test_ground_starts_as_the_plane_where_z_is_zero(geometry: MlpConfig) -> None:
    field = of(SdfConfig(init="ground", geometry=geometry))
    x = points(200)
    torch.testing.assert_close(field.value(x).detach(), x[:, 2], atol=1e-5, rtol=0)
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(200, 3)
    gradient = field.gradient(x)
    assert gradient is not None
    torch.testing.assert_close(gradient.detach(), up, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["sdf, hash grid", "sdf, permutohedral"])
def test_an_eikonal_loss_trains_the_table(name: str) -> None:
    """Double backward through network and grid: against finite differences of the loss in the table."""
    torch.manual_seed(0)
    field = of(FIELDS[name])
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


def test_the_turned_point_of_nerfpp_is_the_direction_of_the_point_itself() -> None:
    """Rodrigues' rotation of the sphere's exit, as Zhang et al. publish it, against x / r; float64."""
    g = torch.Generator().manual_seed(0)
    origin = 0.7 * torch.nn.functional.normalize(torch.randn(200, 3, generator=g).double(), dim=-1)
    direction = torch.nn.functional.normalize(torch.randn(200, 3, generator=g).double(), dim=-1)
    inverse = torch.rand(200, 1, generator=g).double() * 0.98 + 0.01
    to_middle = -(origin * direction).sum(-1, keepdim=True)
    middle = origin + to_middle * direction
    height = middle.norm(dim=-1, keepdim=True)
    leaves = middle + (1 - height**2).sqrt() * direction
    axis = torch.nn.functional.normalize(torch.linalg.cross(origin, leaves), dim=-1)
    angle = torch.asin(height) - torch.asin(height * inverse)
    turned = leaves * angle.cos() + torch.linalg.cross(axis, leaves) * angle.sin()
    turned += axis * (axis * leaves).sum(-1, keepdim=True) * (1 - angle.cos())
    x = origin + (to_middle + (inverse**-2 - height**2).sqrt()) * direction
    field = FIELDS["outside, frequencies"].build()
    seen = field.coordinates(x)  # type: ignore[operator]
    torch.testing.assert_close(seen, torch.cat([turned, inverse], -1), atol=1e-9, rtol=1e-9)


def test_nerf_knows_the_published_sizes() -> None:
    """8 x 256 with the input again before layer 5, a head of 1 + 256, one view layer of 128."""
    field, color = RadianceFieldConfig().build(), NERF.build(256, gradient=False)
    inputs = [layer.direction.shape[1] for layer in field.density.linears()]
    assert inputs == [63] + [256] * 8 and field.density.skip == (5,)
    assert [tuple(layer.direction.shape) for layer in color.network.linears()] == [(128, 256 + 27), (3, 128)]


def test_an_occupancy_is_a_logit_of_a_sphere() -> None:
    torch.manual_seed(0)
    field = of(OccupancyFieldConfig(radius=0.6))
    assert field.value(torch.zeros(1, 3)) > 0.1 and (field.value(directions(50)) < 0).all()
    x, d = points(50), directions(50)
    sample, inner = field(Points(x, d)), Sdf.forward(field, Points(x, d))  # type: ignore[arg-type]
    assert sample.gradient is not None and inner.gradient is not None
    torch.testing.assert_close(sample.value, -inner.value)
    torch.testing.assert_close(sample.gradient, -inner.gradient)
    torch.testing.assert_close(sample.features, inner.features)


def test_a_color_network_gets_the_normal_outward() -> None:
    """Of an occupancy, which falls outward, the gradient of the network f = -value, as published."""
    both, x, d = volume("occupancy, frequencies"), points(50), directions(50)
    seen, color = both.look(Points(x, d))
    assert seen.gradient is not None
    torch.testing.assert_close(color, both.appearance(Points(x, d), seen.features, -seen.gradient))


def test_a_network_of_sines_is_trained_to_a_sphere() -> None:
    """Mean error below 1 % of a radius, the sign right, and a second time the same numbers."""
    fields = []
    for _ in range(2):
        torch.manual_seed(3)
        field = FIELDS["sdf, sines"].build()
        field.initialize()
        fields.append(field)
    x = points(2000)
    with torch.no_grad():
        error = (fields[0].value(x) - (x.norm(dim=-1) - 0.4)).abs()[x.norm(dim=-1) < 1]
    assert error.mean() < 0.012 and fields[0].value(torch.zeros(1, 3)) < -0.3
    for a, b in zip(fields[0].parameters(), fields[1].parameters(), strict=True):
        assert torch.equal(a, b) and a.grad is None


def test_a_wall_ends_the_scene() -> None:
    """VolSDF's clamp: min(f, 20 (R - |x|)), its gradient, and no trace of it far inside."""
    field, open_field = built("sdf, wall"), built("sdf, frequencies")
    near, far = directions(20) * 0.3, directions(20) * 0.9
    torch.testing.assert_close(field.value(far), torch.full((20,), 20 * (0.7 - 0.9)))
    torch.testing.assert_close(field.gradient(far), -20 * directions(20))
    assert (field.value(near) < 20 * 0.3).all() and isinstance(open_field, Sdf)


@pytest.mark.parametrize("taps", [4, 6])
def test_taps_are_exact_on_a_slope_and_blur_what_is_fine(taps: int) -> None:
    """A plane's gradient comes out exactly; a wave shorter than the step nearly vanishes."""
    torch.manual_seed(0)
    field = SdfConfig(**SMALL_SDF, numerical={"taps": taps, "step": 0.05}).build().double()
    slope = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)

    class Plane(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[..., :3] @ slope)[..., None]

    field.geometry = Plane()  # type: ignore[assignment]
    x = points(10).double()
    assert field.taps is not None
    torch.testing.assert_close(field._differences(x, field.taps.double()), slope.expand(10, 3), atol=1e-7, rtol=1e-6)
    assert field.taps.norm(dim=-1) == pytest.approx(0.05)


def test_a_dense_grid_is_trilinear() -> None:
    """Its corners hold the table's rows, x fastest, and between them it is torch's own trilinear sampling."""
    torch.manual_seed(0)
    encoding = DenseGridConfig(resolutions=(5,), features=4, initial=1.0).build()
    x = points(60)
    grids = encoding.table.view(2, 6, 6, 6, 2).permute(0, 4, 1, 2, 3)  # level, feature, z, y, x
    truth = torch.nn.functional.grid_sample(grids, x.view(1, 60, 1, 1, 3).expand(2, -1, -1, -1, -1), align_corners=True)
    torch.testing.assert_close(encoding(x)[:, 3:], truth.view(4, 60).T, atol=1e-5, rtol=1e-5)
    assert encoding.width == 7 and encoding.active == 2
    half = DenseGridConfig(resolutions=(4, 8), features=4, active=0.5).build()
    assert half.active == 2 and half.levels == 4
    with pytest.raises(ValueError, match="corners in all"):
        DenseGridConfig(resolutions=(1024,))


def test_mixed_precision_rounds_what_tolerates_it_and_no_distance() -> None:
    fields = volume("radiance, frequencies"), volume("sdf, frequencies")
    for field, rounds_value in zip(fields, (True, False), strict=True):
        for module in field.modules():
            if isinstance(module, Mlp):
                module.widest = 1000  # as if it were; the kernel of narrower ones does not round
        x, d = points(100), directions(100)
        exact, exact_color = field.look(Points(x, d))
        for network in field.low_precision_networks():
            network.mixed = True
        mixed, mixed_color = field.look(Points(x, d))
        assert mixed_color.dtype == mixed.value.dtype == torch.float32
        assert (mixed_color - exact_color).abs().max() < 0.02
        assert rounds_value or torch.equal(mixed.value, exact.value)
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # elsewhere products stay as they are
            assert not torch.equal(mixed_color, exact_color)
            assert torch.equal(mixed.value, exact.value) != rounds_value
        torch.testing.assert_close(mixed.value, exact.value, atol=0.02, rtol=0.02)
        with torch.no_grad():  # pictures and meshes are exact
            torch.testing.assert_close(field.look(Points(x, d))[1], exact_color, atol=1e-6, rtol=1e-5)


def test_every_part_of_the_folder_is_tested_here() -> None:
    from engine import experiment  # noqa: F401  (discovers the parts)
    from models.encodings.base import EncodingConfig
    from models.fields.base import FieldConfig

    used = {type(config) for config in FIELDS.values()} | {FrequencyConfig, HashGridConfig, SphericalHarmonicsConfig}
    used |= {DenseGridConfig, PermutohedralConfig, TensorVmConfig, TensorCpConfig, VoxelGridConfig, OctreeBlocksConfig}
    used |= {NsvfConfig, OctreeConfig, LinkedVoxelsConfig}
    used |= {OutsideSdfConfig}  # in losses/test_background_surface.py
    assert set(parts(FieldConfig).values()) | set(parts(EncodingConfig).values()) == used
    assert issubclass(type(SMALL_GRID.build()), Encoding)


def test_a_mirrored_direction_leaves_at_the_angle_at_which_it_came() -> None:
    d, gradient = directions(50), directions(50).roll(1, 0) * 3
    normal = gradient / 3
    found = mirrored(d, gradient)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(50))
    torch.testing.assert_close((found * normal).sum(-1), -(d * normal).sum(-1))
    torch.testing.assert_close(torch.linalg.cross(found, normal), torch.linalg.cross(d, normal))
    assert torch.isfinite(mirrored(d, torch.zeros(50, 3))).all()
