"""Round numbers for axes and scales."""

from __future__ import annotations

import math


def round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least `least` > 0, up to rounding."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
