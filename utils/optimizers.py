"""Optimizers of torch in their quickest form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.graph import increment_version


def fused(kind: type[torch.optim.Adam], groups: Sequence[Any], **options: Any) -> torch.optim.Adam:
    """One pass over memory for all parameters of `groups`, as the optimizer's own argument.

    Torch's fused step does not count the versions of what it changes; here it does, so that what was computed from a
    parameter can tell that it is out of date.
    """
    optimizer = kind(groups, fused=True, **options)
    optimizer.register_step_post_hook(_count_versions)
    return optimizer


def _count_versions(optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
    increment_version([parameter for group in optimizer.param_groups for parameter in group["params"]])
