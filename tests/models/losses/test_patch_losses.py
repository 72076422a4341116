"""Losses on patches against scikit-image, hand-made numbers and finite differences; refused where there are none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from dataio.batches import RayBatch
from engine import experiment
from models.losses.base import LossConfig, Step
from models.losses.color_gradient import ColorGradientLoss
from models.losses.patches import in_patches
from models.losses.structure import StructureLoss
from models.model import Model
from tests.models.losses.test_losses import rendering
from tests.support.analytic import rays_at_sphere, sphere_model
from tests.support.sources import ROOT
from utils.errors import InputError

SIDE, PATCHES = 8, 3


@pytest.fixture(scope="module")
def model() -> Model:
    return sphere_model()


def colors(seed: int) -> Tensor:
    """[R, 3] float64, smooth within each patch but for some noise."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 0.6, SIDE)[None, :, None, None] + np.linspace(0, 0.3, SIDE)[None, None, :, None]
    pictures = np.broadcast_to(ramp, (PATCHES, SIDE, SIDE, 3)) + 0.1 * random.random((PATCHES, SIDE, SIDE, 3))
    return torch.from_numpy(pictures.reshape(-1, 3))


def loss_of(loss: LossConfig, color: Tensor, target: Tensor, model: Model, patch: int | None = SIDE) -> Tensor:
    batch = RayBatch(rays_at_sphere(len(color)), target, patch=patch)
    return loss(Step(replace(rendering(len(color)), color=color), batch, model))


# The sigma of which scikit-image's window, cut at 3.5 sigma, has 7 pixels.
@pytest.mark.parametrize(("window", "sigma"), [(7, None), (5, None), (7, 0.8)])
def test_structure_is_that_of_scikit_image(window: int, sigma: float | None, model: Model) -> None:
    color, target = colors(0), colors(1)
    pictures = (each.numpy().reshape(PATCHES, SIDE, SIDE, 3) for each in (color, target))
    options = {"win_size": window} if sigma is None else {"gaussian_weights": True, "sigma": sigma}
    truth = [
        structural_similarity(a, b, data_range=1.0, channel_axis=-1, use_sample_covariance=False, **options)
        for a, b in zip(*pictures, strict=True)
    ]
    found = loss_of(StructureLoss(window=window, sigma=sigma), color, target, model)
    assert found.item() == pytest.approx(1 - np.mean(truth), rel=1e-10) and 0.01 < found.item() < 1
    assert loss_of(StructureLoss(), target, target, model).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [StructureLoss(), StructureLoss(window=4, sigma=1.0), ColorGradientLoss()])
def test_gradients_are_finite_differences(loss: LossConfig, model: Model) -> None:
    color, target = colors(2)[: SIDE**2].requires_grad_(), colors(3)[: SIDE**2]
    assert torch.autograd.gradcheck(lambda x: loss_of(loss, x, target, model), (color,))


def test_differences_of_neighbors_by_hand(model: Model) -> None:
    target = torch.zeros(4, 3)
    color = torch.tensor([0.0, 0.1, 0.4, 0.2])[:, None].expand(4, 3)  # 0 0.1 / 0.4 0.2: steps 0.1, 0.2, 0.4, 0.1
    assert loss_of(ColorGradientLoss(), color, target, model, patch=2).item() == pytest.approx(0.2)
    shifted = loss_of(ColorGradientLoss(), color + 0.3, color, model, patch=2)
    assert shifted.item() == pytest.approx(0, abs=1e-6)  # a shift of all colors is none of its business


def test_rays_stand_row_by_row() -> None:
    rays = torch.arange(2 * 9).float()[:, None].expand(-1, 3)
    patches = in_patches(rays, 3)
    assert patches.shape == (2, 3, 3, 3) and torch.equal(patches[1, 2], torch.arange(9.0, 18).view(3, 3))
    with pytest.raises(TypeError, match="patches"):
        in_patches(rays, None)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["losses.s={type: structure}"], "losses.s needs patches of at least 7 x 7 .* gives single pixels"),
        (["losses.s={type: color_gradient}"], "losses.s needs patches of at least 2 x 2"),
        (
            ["losses.s={type: structure}", "train.pixels={type: patches, side: 4}"],
            "losses.s needs patches of at least 7 x 7 .* gives patches of 4 x 4",
        ),
        (["train.pixels={type: patches, side: 5}"], r"train.rays should be a multiple of 25, .* \(got 4096\)"),
        (
            ["train.pixels={type: patches, side: 8}", "train.micro_batch=100"],
            r"train.micro_batch should be a multiple of 64, .* \(got 100\)",
        ),
    ],
)
def test_what_does_not_go_with_patches_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        experiment.read_config(ROOT / "configs/neus_hash.yaml", overrides)
    assert "\n" not in str(caught.value)
