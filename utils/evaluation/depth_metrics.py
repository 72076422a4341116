"""How right depths are: the numbers that the field uses, over the pixels whose true depth is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATIO = 1.25


def depth_numbers(depth: NDArray[np.floating], truth: NDArray[np.floating]) -> dict[str, float | None]:
    """AbsRel, RMSE, and the shares within a ratio of 1.25, 1.25^2 and 1.25^3; None without a pixel.

    depth, truth: [N] z depths, truth above zero. RMSE is in their unit. A depth that is zero or not finite, where
    nothing was rendered, is as wrong as one at the camera. Source: Eigen et al. 2014, section 4.2.
    """
    if len(truth) == 0:
        return dict.fromkeys(("abs_rel", "rmse", *(f"delta_{power}" for power in (1, 2, 3))))
    found = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float64)
    true = truth.astype(np.float64)
    ratio = np.maximum(found / true, true / np.maximum(found, 1e-12))
    return {
        "abs_rel": float((np.abs(found - true) / true).mean()),
        "rmse": float(np.sqrt(np.square(found - true).mean())),
        **{f"delta_{power}": float((ratio < RATIO**power).mean()) for power in (1, 2, 3)},
    }
