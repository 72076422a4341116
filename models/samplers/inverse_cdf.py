"""Samples of a histogram along each ray."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.random_stream import uniform


def sample_pdf(
    edges: Tensor, weights: Tensor, count: int, *, random: bool = False, within: Tensor | None = None
) -> Tensor:
    """Inverse-CDF samples of a histogram.

    edges: [R, S+1] ascending; weights: [R, S] >= 0 (1e-5 is added to each). Returns [R, count] ascending: at the
    quantiles (k + 1/2) / count, or, where `random`, at one in each share (k ... k + 1) / count. within: [R, count] in
    [0, 1), where in their shares, for callers that have drawn it.
    Not meant to be differentiated.
    """
    pdf = weights + 1e-5
    cdf = torch.nn.functional.pad((pdf / pdf.sum(1, keepdim=True)).cumsum(1), (1, 0))
    shape = (len(edges), count)
    if within is None:
        within = uniform(shape, edges.device) if random else torch.full(shape, 0.5, device=edges.device)
    u = ((torch.arange(count, device=edges.device) + within) / count).to(cdf.dtype)
    above = torch.searchsorted(cdf, u, right=True).clamp(1, edges.shape[1] - 1)
    low, high = cdf.gather(1, above - 1), cdf.gather(1, above)
    share = (u - low) / (high - low).clamp_min(1e-12)
    start, end = edges.gather(1, above - 1), edges.gather(1, above)
    return start + share.clamp(0, 1) * (end - start)
