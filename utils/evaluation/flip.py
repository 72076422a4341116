"""FLIP: how visible the difference of two pictures is to somebody who switches between them.

Source: Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images", for pictures of low dynamic range,
with all constants of the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180  # of a screen 0.7 m wide with 3840 pixels, 0.7 m away
FLIP_DEFINITION = "FLIP of low dynamic range, 67 pixels per degree, mean over pixels"

TO_XYZ = (
    (10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794),
    (2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897),
    (1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382),
)
# Of the contrast sensitivity of each opponent channel: pairs of a and b in a sqrt(pi / b) exp(-pi^2 r^2 / b), degrees.
SENSITIVITY = (((1.0, 0.0047),), ((1.0, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))
WIDEST = 0.04
COLOR_EXPONENT, FEATURE_EXPONENT = 0.7, 0.5
KNEE, KNEE_VALUE = 0.4, 0.95  # where small color differences, which take most of the range, end
FEATURE_WIDTH = 0.082  # degrees
LAB_DELTA = 6 / 29


def flip(prediction: Tensor, target: Tensor) -> Tensor:
    """The error map of two pictures, 0 where no difference is seen, at most 1.

    prediction, target: [H, W, 3] sRGB in [0, 1]. Returns [H, W]; its mean is the number to report. Raises ValueError
    for shapes that differ.
    """
    if prediction.shape != target.shape or prediction.ndim != 3 or prediction.shape[-1] != 3:
        raise ValueError(f"two [H, W, 3] expected, got {tuple(prediction.shape)} and {tuple(target.shape)}")
    ours, theirs = (_opponent(_linear(x.detach().float().movedim(-1, 0))) for x in (prediction, target))
    color = _color_difference(_perceived(ours), _perceived(theirs))
    features = _feature_difference(ours[:1], theirs[:1])
    return torch.pow(color, 1 - features)


def _linear(srgb: Tensor) -> Tensor:
    """[3, H, W] sRGB in [0, 1] -> linear."""
    return torch.where(srgb > 0.04045, ((srgb.clamp_min(0) + 0.055) / 1.055) ** 2.4, srgb / 12.92)


def _xyz_of_rgb() -> Tensor:
    return torch.tensor(TO_XYZ)


def _of_white(linear: Tensor) -> Tensor:
    """[3, H, W] linear RGB -> XYZ, as shares of those of white."""
    matrix = _xyz_of_rgb()
    return torch.einsum("ij,jhw->ihw", matrix, linear) / matrix.sum(1)[:, None, None]


def _opponent(linear: Tensor) -> Tensor:
    """[3, H, W] linear RGB -> YCxCz: luminance, red-green, blue-yellow."""
    x, y, z = _of_white(linear)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _rgb(opponent: Tensor) -> Tensor:
    """The inverse of `_opponent`, [3, H, W]."""
    y = (opponent[0] + 16) / 116
    share = torch.stack([opponent[1] / 500 + y, y, y - opponent[2] / 200])
    matrix = _xyz_of_rgb()
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(matrix), share * matrix.sum(1)[:, None, None])


def _perceived(opponent: Tensor) -> Tensor:
    """[3, H, W] YCxCz -> what the eye resolves of it, in L*a*b* with the saturation that it has at that lightness."""
    radius = math.ceil(3 * math.sqrt(WIDEST / (2 * math.pi**2)) * PIXELS_PER_DEGREE)
    blurred = []
    for channel, terms in zip(opponent, SENSITIVITY, strict=True):
        # Each term falls off along rows and columns alike: of their sum the weights are brought to 1 together.
        kernels = [_sensitivity(b, radius) for _, b in terms]
        heights = [a * math.pi / b for a, b in terms]
        total = sum(height * float(kernel.sum()) ** 2 for height, kernel in zip(heights, kernels, strict=True))
        seen = [height * _filtered(channel, k, k) for height, k in zip(heights, kernels, strict=True)]
        blurred.append(torch.stack(seen).sum(0) / total)
    return _hunt(_lab(_rgb(torch.stack(blurred)).clamp(0, 1)))


def _sensitivity(b: float, radius: int) -> Tensor:
    """[2 radius + 1] the falling-off along one axis."""
    degrees = torch.arange(-radius, radius + 1, dtype=torch.float64) / PIXELS_PER_DEGREE
    return torch.exp(-(math.pi**2) * degrees.square() / b).float()


def _filtered(channel: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """[H, W] under a separable window, `along` [K] each row and `across` [K] each column; borders are repeated."""
    radius = len(along) // 2
    padded = F.pad(channel[None, None], (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, along.view(1, 1, 1, -1))
    return F.conv2d(rows, across.view(1, 1, -1, 1))[0, 0]


def _lab(linear: Tensor) -> Tensor:
    """[3, H, W] linear RGB -> L*a*b*."""
    share = _of_white(linear)
    root = torch.where(share > LAB_DELTA**3, share.clamp_min(1e-12).pow(1 / 3), share / (3 * LAB_DELTA**2) + 4 / 29)
    return torch.stack([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def _hunt(lab: Tensor) -> Tensor:
    """[3, H, W] L*a*b* with a* and b* as the lightness lets them appear."""
    return torch.cat([lab[:1], 0.01 * lab[:1] * lab[1:]])


def _hyab(a: Tensor, b: Tensor) -> Tensor:
    """[H, W] the HyAB distance of colors [3, H, W], to the exponent of the paper."""
    away = a - b
    return (away[0].abs() + away[1:].square().sum(0).sqrt()) ** COLOR_EXPONENT


def _color_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """[H, W] the distance of perceived colors [3, H, W], 1 for the farthest that a screen shows, green and blue."""
    green, blue = (torch.tensor(x).view(3, 1, 1) for x in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    most = _hyab(_hunt(_lab(green)), _hunt(_lab(blue))).item()
    distance, knee = _hyab(ours, theirs), KNEE * most
    beyond = KNEE_VALUE + (distance - knee) / (most - knee) * (1 - KNEE_VALUE)
    return torch.where(distance < knee, KNEE_VALUE / knee * distance, beyond).clamp(0, 1)


def _feature_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """[H, W] how much edges and points differ between luminances [1, H, W] of YCxCz."""
    found = []
    for kind in (_edge, _point):
        strengths = []
        for luminance in (ours, theirs):
            window, smooth = kind()
            gray = (luminance[0] + 16) / 116
            along, across = _filtered(gray, window, smooth), _filtered(gray, smooth, window)
            strengths.append((along.square() + across.square()).sqrt())
        found.append((strengths[0] - strengths[1]).abs())
    return (torch.maximum(*found) / math.sqrt(2)).clamp(0, 1) ** FEATURE_EXPONENT


def _gaussian() -> tuple[Tensor, Tensor, float]:
    """Offsets [K], a bell over them [K], and its deviation, in pixels."""
    deviation = 0.5 * FEATURE_WIDTH * PIXELS_PER_DEGREE
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return offsets, torch.exp(-offsets.square() / (2 * deviation**2)), deviation


def _edge() -> tuple[Tensor, Tensor]:
    """The detector of edges along one axis [K], and what goes with it along the other [K]."""
    offsets, bell, _ = _gaussian()
    return _balanced(-offsets * bell), (bell / bell.sum()).float()


def _point() -> tuple[Tensor, Tensor]:
    """The detector of points along one axis [K], and what goes with it along the other [K]."""
    offsets, bell, deviation = _gaussian()
    return _balanced((offsets.square() / deviation**2 - 1) * bell), (bell / bell.sum()).float()


def _balanced(window: Tensor) -> Tensor:
    """A window [K] whose positive weights sum to 1 and whose negative ones to -1."""
    positive, negative = window.clamp_min(0), window.clamp_max(0)
    return (positive / positive.sum() - negative / negative.sum()).float()
