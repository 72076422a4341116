"""PSNR and SSIM against closed forms and scikit-image in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from utils.evaluation.image_metrics import HIGHEST_PSNR, affine_fitted, psnr, ssim


def pair(height: int = 40, width: int = 31, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one = torch.rand(height, width, 3, generator=generator, dtype=torch.float64)
    other = (one + 0.1 * torch.randn(height, width, 3, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return one, other


def test_an_affine_change_of_color_is_taken_away() -> None:
    """Of a picture's exposure and white balance exactly, within a mask alone where there is one; of noise nothing."""
    one, other = pair()
    change = torch.tensor([[0.7, 0.1, 0.0], [0.0, 0.5, 0.1], [0.1, 0.0, 0.8]], dtype=torch.float64)
    seen = one @ change + 0.05
    torch.testing.assert_close(affine_fitted(one, seen), seen, atol=1e-9, rtol=0)
    mask = torch.zeros(40, 31, dtype=torch.bool)
    mask[5:20] = True
    within = affine_fitted(one, seen, mask)
    torch.testing.assert_close(within[mask], seen[mask], atol=1e-9, rtol=0)
    assert torch.equal(within[~mask], one[~mask])
    assert psnr(affine_fitted(one, other), other) - psnr(one, other) < 0.3
    flat = torch.full((4, 4, 3), 0.5)
    torch.testing.assert_close(affine_fitted(flat, flat * 0.5), flat * 0.5, atol=1e-6, rtol=0)


def test_psnr_closed_form() -> None:
    black, gray = torch.zeros(4, 5, 3), torch.full((4, 5, 3), 0.1)
    assert psnr(gray, black).item() == pytest.approx(20.0, abs=1e-5)
    assert psnr(gray, gray).item() == pytest.approx(HIGHEST_PSNR)


def test_psnr_within_a_mask() -> None:
    black = torch.zeros(4, 5, 3)
    picture = black.clone()
    picture[0] = 1.0
    picture[1] = 0.01
    mask = torch.zeros(4, 5)
    mask[1] = 1.0
    assert psnr(picture, black, mask).item() == pytest.approx(40.0, abs=1e-4)
    assert psnr(picture, black, mask > 0.5).item() == pytest.approx(40.0, abs=1e-4)
    with pytest.raises(ValueError, match="no pixels"):
        psnr(picture, black, torch.zeros(4, 5))


@pytest.mark.parametrize("size", [(11, 11), (40, 31), (13, 64)])
def test_ssim_is_scikit_images(size: tuple[int, int]) -> None:
    one, other = pair(*size)
    theirs = structural_similarity(
        one.numpy(),
        other.numpy(),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(one, other).item() == pytest.approx(theirs, abs=1e-9)
    assert ssim(one.float(), other.float()).item() == pytest.approx(theirs, abs=1e-4)


def test_ssim_of_equal_pictures_is_one() -> None:
    one, _ = pair()
    assert ssim(one, one).item() == pytest.approx(1.0, abs=1e-12)


def test_gradients() -> None:
    one, other = pair(12, 12)
    one = one[..., :1].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: psnr(x, other[..., :1]), one)
    assert torch.autograd.gradcheck(lambda x: ssim(x, other[..., :1]), one)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(10, 20, 3), torch.zeros(10, 20, 3))
    assert np.isfinite(ssim(torch.zeros(11, 20, 3), torch.zeros(11, 20, 3)).item())
