"""Numbers on the command line of a script."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def between(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], float]:
    """An argparse type: a number of `kind` from `least` to `most`, the ends included."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{least:g} to {most:g} expected, got {text[:60]}")
        return value

    return parse
