"""Whether all ranks still train the same model: a bit that flips on one of them would never be noticed otherwise."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from utils.distributed import RanksError, is_parallel, max_across_ranks


@torch.no_grad()
def digest(tensors: Iterable[Tensor]) -> Tensor:
    """[2] int64, a sum of the words of float or integer tensors [*N]: another one for any bit that is flipped.

    On the first tensor's device, without synchronization. Sums of integers do not depend on their order.
    """
    sums = [_bits(tensor) for tensor in tensors if tensor.numel()]
    first = sums[0].device
    each = torch.stack([found.to(first) for found in sums])
    place = torch.arange(1, len(each) + 1, device=first)
    return torch.stack([each.sum(), (each * place).sum()])


def _bits(tensor: Tensor) -> Tensor:
    """[] int64, the sum of a tensor's words."""
    flat = tensor.detach().contiguous().reshape(-1)
    words = flat.view(torch.int32) if flat.element_size() in (4, 8) else flat.view(torch.uint8)
    return words.sum(dtype=torch.int64)


def check_agreement(module: torch.nn.Module, step: int) -> None:
    """Raises RanksError, on all ranks, when parameters are not the same on each; all ranks call it together."""
    if not is_parallel():
        return
    own = digest(module.parameters())
    largest = max_across_ranks(torch.cat([own, -own]))
    if bool((largest[:2] != -largest[2:]).any()):
        raise RanksError(
            f"the ranks' parameters differ at step {step}: a memory, a GPU or a network has changed numbers on one of"
            " them - the newest checkpoint is of before"
        )
