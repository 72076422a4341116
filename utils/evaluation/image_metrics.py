"""How like two pictures are: PSNR and SSIM, defined so that the numbers can be compared."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HIGHEST_PSNR = 100.0  # of equal pictures, so that a mean over views stays a number
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
SSIM_DEFINITION = "gaussian window 11, sigma 1.5, K1 0.01, K2 0.03, population covariance, whole windows, RGB"


def psnr(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error), at most `HIGHEST_PSNR`.

    prediction, target: [*N, 3] color in [0, 1]. mask: [*N] bool or in [0, 1], the pixels that count (over
    0.5). Returns []. Raises ValueError for shapes that differ and for an empty mask. Differentiable in
    the colors.
    """
    _check_shapes(prediction, target)
    if mask is not None:
        chosen = mask if mask.dtype == torch.bool else mask > 0.5
        prediction, target = prediction[chosen], target[chosen]
    if prediction.numel() == 0:
        raise ValueError("psnr of no pixels")
    error = (prediction - target).square().mean()
    return -10.0 * torch.log10(error.clamp_min(10.0 ** (-HIGHEST_PSNR / 10.0)))


def affine_fitted(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """[*N, 3] the affine change of predicted colors that is nearest to the target, in least squares over all pixels.

    So pictures are compared apart from exposure and white balance, which differ from photograph to photograph.
    prediction, target: [*N, 3]. mask: [*N] bool, the pixels that count and change; the others stay. Not differentiable.
    """
    _check_shapes(prediction, target)
    colors, wanted = prediction.detach().reshape(-1, 3).double(), target.reshape(-1, 3).double()
    chosen = torch.ones(len(colors), dtype=torch.bool) if mask is None else mask.reshape(-1)
    rows = F.pad(colors[chosen], (0, 1), value=1.0)
    # The pseudo-inverse: a picture of one color leaves the matrix undecided.
    change = torch.linalg.pinv(rows.T @ rows) @ (rows.T @ wanted[chosen])
    fitted = colors.clone()
    fitted[chosen] = rows @ change
    return fitted.to(prediction.dtype).view(prediction.shape)


def ssim(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity: Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1.

    prediction, target: [H, W, C] color in [0, 1], at least 11 pixels high and wide. Windows lie wholly inside
    the picture; the mean is over windows and channels, covariances are those of the population. This is
    skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
    mask: [H, W] bool, the windows that count by their middles. Returns [], at most 1, NaN where none counts. Raises
    ValueError for shapes that differ or pictures smaller than the window. Differentiable in both. Source: Wang et al.
    2004, eq. 13.
    """
    _check_shapes(prediction, target)
    if prediction.ndim != 3 or min(prediction.shape[:2]) < WINDOW:
        raise ValueError(f"ssim needs [H, W, C] of at least {WINDOW} pixels, got {tuple(prediction.shape)}")
    x, y = prediction.movedim(-1, 0), target.movedim(-1, 0)
    found = structural_similarity(x[None], y[None], gaussian_window(WINDOW, SIGMA).to(x))[0]
    border = WINDOW // 2
    return found.mean() if mask is None else found[:, mask[border:-border, border:-border]].mean()


def structural_similarity(x: Tensor, y: Tensor, window: Tensor) -> Tensor:
    """SSIM of every window that lies wholly in a picture, K1 = 0.01, K2 = 0.03, data range 1.

    x, y: [N, C, H, W] in [0, 1]. window: [K] of sum 1, the weights along rows and along columns, K at most H and W.
    Returns [N, C, H-K+1, W-K+1], at most 1; covariances are those of the population. Differentiable in x and y.
    Source: Wang et al. 2004, eq. 13.
    """
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.stack([x, y, x * x, y * y, x * y]), window)
    variance_x, variance_y = mean_xx - mean_x.square(), mean_yy - mean_y.square()
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    largest = (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    return likeness / largest


def gaussian_window(size: int, sigma: float) -> Tensor:
    """[K] float64 weights of sum 1, highest in the middle, K = `size`. sigma: in pixels."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    return kernel / kernel.sum()


def _blur(stack: Tensor, window: Tensor) -> Tensor:
    """[*N, H, W] under a window [K] along both, without the border: [*N, H-K+1, W-K+1]."""
    flat = stack.flatten(0, -3)[:, None]
    blurred = F.conv2d(F.conv2d(flat, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    return blurred.view(*stack.shape[:-2], *blurred.shape[-2:])


def _check_shapes(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(f"one shape expected, got {tuple(prediction.shape)} and {tuple(target.shape)}")
