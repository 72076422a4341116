"""One gradient for a table that several operations of a backward pass add to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.kernels.runtime.launch import as_warp

LARGE = 1 << 26  # bytes: above what an allocator keeps, so that its zeros are always new pages


class TableGradients(threading.local):
    """One gradient per table, backward pass and thread, to which every operation of the pass adds its own in place.

    Autograd would fill a table with zeros for each of them and add up whole tables, which costs more than the scatter.
    The first operation returns the tensor, the later ones return nothing. Autograd hands the tensor on only when all
    that depends on the table has run, and holds it till then: no reference is kept here, which would make it be copied.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, Any]] = {}

    def of(
        self, table: Tensor, dtype: Any = None, fresh: Callable[[Tensor], Tensor] = torch.empty_like
    ) -> tuple[Tensor | None, Any]:
        """What to return as the gradient of table [N, F], as `fresh` makes it, or None; and the rows to add to.

        dtype: of the rows as a kernel takes them; see `as_warp`. fresh: not filled yet, unless it is `zeros_like`.
        """
        task = torch._C._current_graph_task_id()
        known, rows = self._open.get(table.data_ptr(), (-1, None))
        if known == task:
            return None, rows
        grad = fresh(table)
        rows = as_warp(grad, dtype)
        self._open[table.data_ptr()] = (task, rows)
        return grad, rows


sums = TableGradients()


def zeros_like(table: Tensor) -> Tensor:
    """Zeros as torch's. On a CPU large ones are pages of the system that cost nothing until they are written to.

    A step writes to few rows of a large table, and torch would fill all of it, page by page.
    """
    if table.device.type != "cpu" or table.nbytes < LARGE:
        return torch.zeros_like(table)
    return torch.from_numpy(np.zeros(table.shape, np.float32))
