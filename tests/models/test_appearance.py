"""Appearances and what is learned of single photographs: closed forms, gradients, and who gets which row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.appearance.base import AppearanceConfig, PerImageConfig
from models.appearance.direct import DirectConfig
from models.appearance.embedding import Embedding, EmbeddingConfig
from models.appearance.mlp import MlpAppearanceConfig
from models.appearance.spherical_harmonics import HarmonicColorConfig
from models.appearance.tint import Tint, TintConfig
from models.model import Model, ModelConfig
from models.networks.mlp import Mlp, MlpConfig
from models.rendering.surface import Surface
from models.samples import DenseSamples, Points
from models.volume import Volume, VolumeConfig
from tests.models.kernels.test_harmonics import real_harmonics
from tests.support.analytic import DENSITY_FIELD, rays_at_sphere
from utils.config.parts import discover, parts
from utils.errors import InputError

discover("models.shading")
DENSITY = {"type": "density"}


def seen_by(camera: list[int], pixel: Tensor | None = None) -> Points:
    """One sample on each ray of some cameras."""
    rays = rays_at_sphere(len(camera))
    object.__setattr__(rays, "camera", torch.tensor(camera))
    object.__setattr__(rays, "pixel", pixel)
    samples = DenseSamples.from_edges(rays, torch.tensor([1.0, 3.0]).expand(len(camera), 2))
    return Points(samples.positions, samples.directions, samples)


def test_every_part_is_tested_here() -> None:
    tested = {DirectConfig, HarmonicColorConfig, MlpAppearanceConfig}
    assert set(parts(AppearanceConfig).values()) == tested
    assert set(parts(PerImageConfig).values()) == {EmbeddingConfig, TintConfig}


def test_points_know_camera_and_footprint() -> None:
    at = seen_by([2, 0], torch.tensor([0.01, 0.02]))
    assert at.camera is not None and at.footprint is not None
    assert at.camera.tolist() == [[2], [0]]
    torch.testing.assert_close(at.footprint, torch.tensor([[0.02], [0.04]]))  # at distance 2
    alone = Points(at.x, at.directions)
    assert alone.camera is None and alone.footprint is None and seen_by([1]).footprint is None


def test_direct_features_are_channels() -> None:
    features = torch.randn(5, 7)
    found = DirectConfig(count=7, activation="none").build(7, gradient=False)(seen_by([0] * 5), features, None)
    assert torch.equal(found, features) and DirectConfig(count=7).channels == 7
    with pytest.raises(InputError, match="direct of 3 channels needs as many features; field.features is 7"):
        DirectConfig().build(7, gradient=False)


def test_harmonics_of_degree_one_are_a_slope_along_the_view() -> None:
    """Y_00 = 0.2820948, Y_1 = 0.4886025 (y, z, x); a sigmoid of the sum."""
    coefficients = torch.randn(6, 12)
    at = seen_by([0] * 6)
    found = HarmonicColorConfig(degree=1).build(12, gradient=False)(at, coefficients[:, None], None)[:, 0]
    x, y, z = at.directions[:, 0].unbind(-1)
    basis = torch.stack([torch.full_like(x, 0.2820948), 0.4886025 * y, 0.4886025 * z, 0.4886025 * x], -1)
    truth = torch.sigmoid((coefficients.view(6, 3, 4) * basis[:, None]).sum(-1))
    torch.testing.assert_close(found, truth)
    with pytest.raises(InputError, match="degree 2 needs 27 features; field.features is 12"):
        HarmonicColorConfig(degree=2).build(12, gradient=False)


def test_harmonics_of_degree_two_are_those_of_scipy_and_cut() -> None:
    """One half more than the sum, cut at zero; in pictures at one too, where a loss has no gradient."""
    coefficients, at = 2 * torch.randn(50, 27), seen_by([0] * 50)
    color = HarmonicColorConfig(activation="relu").build(27, gradient=False)
    basis = real_harmonics(at.directions[:, 0].double().numpy(), 2)
    truth = torch.einsum("ncb,nb->nc", coefficients.view(50, 3, 9).double(), torch.from_numpy(basis)) + 0.5
    trained, shown = color(at, coefficients[:, None], None)[:, 0], color.eval()(at, coefficients[:, None], None)[:, 0]
    torch.testing.assert_close(trained.double(), truth.clamp_min(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shown.double(), truth.clamp(0, 1), atol=1e-5, rtol=1e-5)
    assert (truth < 0).any() and (truth > 1).any()


def test_a_network_takes_what_is_named() -> None:
    small = MlpConfig(layers=1, width=8)
    widths = {
        None: (27, 3 + 27 + 3),  # without and with a gradient
        ("position",): (3, 3),
        ("view", "position"): (30, 30),
    }
    for inputs, (without, with_) in widths.items():
        config = MlpAppearanceConfig(network=small, inputs=inputs)
        assert config.build(4, gradient=False).network.inputs == without + 4
        assert config.build(4, gradient=True).network.inputs == with_ + 4
    normal = MlpAppearanceConfig(network=small, inputs=("normal",)).build(4, gradient=True)
    with pytest.raises(TypeError, match="needs a field with a gradient"):
        normal(seen_by([0]), torch.zeros(1, 1, 4), None)


def per_image(kind: str, cameras: int = 4) -> Volume:
    torch.manual_seed(0)
    appearance = {"type": "direct", "per_image": kind} if kind == "tint" else {"per_image": {"type": kind, "width": 2}}
    fitted = {"field": DENSITY_FIELD, "appearance": appearance, "opacity": DENSITY}
    return Volume(VolumeConfig.model_validate(fitted), cameras=cameras)


def test_a_tint_is_affine_per_camera_and_nothing_at_first() -> None:
    volume, at = per_image("tint"), seen_by([1, 3, 1])
    _, plain = volume.look(at)
    assert isinstance(volume.per_image, Tint) and volume.per_image.affine.shape == (4, 12)
    matrix, offset = torch.randn(3, 3), torch.randn(3)
    with torch.no_grad():
        volume.per_image.affine[1] = torch.cat([matrix.flatten(), offset])
    _, tinted = volume.look(at)
    torch.testing.assert_close(tinted[[0, 2]], plain[[0, 2]] + plain[[0, 2]] @ matrix.T + offset)
    torch.testing.assert_close(tinted[1], plain[1])


@pytest.mark.parametrize("kind", ["tint", "embedding"])
def test_who_was_not_trained_on_gets_the_mean(kind: str) -> None:
    volume, at = per_image(kind), seen_by([0, 1, 2])
    assert volume.per_image is not None
    (learned,) = volume.per_image.parameters()
    with torch.no_grad():
        learned[0], learned[1] = 0.2, 0.6
    volume.eval()
    _, seen = volume.look(at)
    _, alone = volume.look(Points(at.x, at.directions))
    with torch.no_grad():
        learned[2] = 0.4
    _, as_mean = volume.look(at)
    torch.testing.assert_close(seen[2], as_mean[2])
    torch.testing.assert_close(alone[2], as_mean[2])
    torch.testing.assert_close(seen[:2], as_mean[:2])


def test_each_camera_learns_of_its_own_photograph() -> None:
    volume, at = per_image("embedding").train(), seen_by([1, 3, 1])
    assert isinstance(volume.per_image, Embedding)
    volume.look(at)[1].sum().backward()
    gradient = volume.per_image.codes.grad
    assert gradient is not None
    assert gradient.abs().sum(1).gt(0).tolist() == [False, True, False, True]


def test_an_appearance_of_the_normal_is_refused_for_a_field_without() -> None:
    with pytest.raises(ValueError, match=r"appearance.type: mlp needs a field with a gradient \(field.type: .*sdf\)"):
        VolumeConfig.model_validate({"field": DENSITY_FIELD, "appearance": {"view": "reflection"}, "opacity": DENSITY})


def test_what_a_photograph_has_of_its_own_has_to_fit() -> None:
    code = {"type": "direct", "per_image": "embedding"}
    with pytest.raises(ValueError, match="embedding adds features, which type: direct takes as colors"):
        VolumeConfig.model_validate({"field": DENSITY_FIELD, "appearance": code, "opacity": DENSITY})
    with pytest.raises(ValueError, match=r"tint changes colors of 3 channels, type: direct gives\s+7"):
        DirectConfig.model_validate({"count": 7, "per_image": "tint"})


@pytest.mark.parametrize("kind", ["tint", "embedding"])
def test_a_camera_that_took_no_photograph_gets_the_mean(kind: str) -> None:
    volume, at = per_image(kind).eval(), seen_by([0, -1, 1])
    assert volume.per_image is not None
    (learned,) = volume.per_image.parameters()
    with torch.no_grad():
        learned[0], learned[1] = 0.2, 0.6
    _, color = volume.look(at)
    _, alone = volume.look(Points(at.x, at.directions))
    torch.testing.assert_close(color[1], alone[1])
    assert not torch.equal(color[0], alone[0])


def test_a_network_refuses_rows_of_another_width() -> None:
    network = Mlp(6, 2, MlpConfig(layers=1, width=8))
    for call in (network, network.without_graph, lambda x: network.with_gradient(x, 0)):
        with pytest.raises(ValueError, match="a network of 6 inputs was given 5"):
            call(torch.zeros(4, 5))


def test_a_proposal_has_the_channels_of_the_model() -> None:
    seven = {"type": "direct", "count": 7}
    field = {**DENSITY_FIELD, "features": 7}
    sampler = {"type": "importance", "proposal": {"field": DENSITY_FIELD, "opacity": DENSITY}}
    part = {"bounds": "sphere", "sampler": sampler, "field": field, "appearance": seven, "opacity": DENSITY}
    with pytest.raises(ValueError, match=r"foreground.sampler.proposal.appearance gives 3 channels"):
        ModelConfig.model_validate({"foreground": part, "shading": "deferred"})


def test_deferred_shading_reaches_surfaces_and_what_lies_behind() -> None:
    """Rays that meet nothing get the shaded background, by the volume as by its surface."""
    seven = {"type": "direct", "count": 7}
    part = {"bounds": "sphere", "sampler": {"type": "stratified", "samples": 8}, "appearance": seven}
    config = {"foreground": {**part, "field": {**DENSITY_FIELD, "features": 7}, "opacity": DENSITY}}
    model = Model(ModelConfig.model_validate({**config, "shading": "deferred", "background_color": "white"})).eval()
    rays = rays_at_sphere(20)
    object.__setattr__(rays, "directions", -rays.directions)  # away from everything
    with torch.no_grad():
        torch.testing.assert_close(Surface(model)(rays).color, model(rays).color)
