"""Buffers that hold the present value of a schedule, filled only when it is another: on a GPU a fill is a launch."""

from __future__ import annotations

from torch import Tensor


def hold(buffer: Tensor, value: float) -> None:
    """Fill a buffer [] with a value, unless this function filled it with the same before.

    Nothing else may write to it. What a buffer holds is known of the tensor itself: one that was moved to another
    device is filled anew.
    """
    if getattr(buffer, "held", None) != value:
        buffer.fill_(value)
        buffer.held = value  # type: ignore[attr-defined]
