"""The exchange of gradients: two ranks over gloo, against means that are known."""

import json

import torch
from torch import Tensor, nn

from engine.cluster.exchange import LARGE, Exchange
from tests.support.two_ranks import said_by_two_ranks
from utils import distributed

WORKER = """
from tests.engine.cluster.test_exchange import of_a_rank
from utils.errors import run_script
run_script(of_a_rank)
"""


class Parts(nn.Module):
    """Parameters of all kinds, and buffers, that differ between ranks."""

    kept: Tensor

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.full((LARGE, 2), float(rank)))
        self.turned = nn.Parameter(torch.full((2, LARGE), float(rank)))  # its gradient is not contiguous
        self.small = nn.Parameter(torch.full((3,), float(rank)))
        self.on_one = nn.Parameter(torch.full((2, 2), float(rank)))
        self.on_none = nn.Parameter(torch.full((), float(rank)))
        self.fixed = nn.Parameter(torch.full((2,), float(rank)), requires_grad=False)
        self.register_buffer("kept", torch.tensor([rank == 0, True]))


def of_a_rank() -> None:
    ranks = distributed.setup("cpu")
    module = Parts(ranks.rank)
    exchange = Exchange(module)
    state = {name: sorted(set(value.flatten().tolist())) for name, value in module.state_dict().items()}
    for step in range(2):  # gradients of the step before are no part of this one's
        module.zero_grad()
        loss = module.table.sum() + 2 * module.turned.sum() + (step + 1) * module.small.sum()
        loss = (ranks.rank + 1) * loss
        if ranks.rank == 1:
            loss = loss + 8 * module.on_one.sum()
        loss.backward()
        assert module.turned.grad is not None
        module.turned.grad = module.turned.grad.t().contiguous().t()
        exchange()
    assert exchange.seconds() > 0
    found = {
        name: None if parameter.grad is None else sorted(set(parameter.grad.flatten().tolist()))
        for name, parameter in module.named_parameters()
    }
    print(json.dumps({"state": state, "found": found}))
    distributed.barrier()
    distributed.cleanup()


def test_means_over_two_ranks() -> None:
    """Where one rank has no gradient it counts as zero; where none has, there is none."""
    for said in said_by_two_ranks(WORKER):
        expected = {"table": [1.5], "turned": [3.0], "small": [3.0], "on_one": [4.0], "on_none": None, "fixed": None}
        assert said["found"] == expected
        assert said["state"] == {name: [0.0] for name in expected} | {"kept": [True]}


def test_a_single_process_exchanges_with_nobody() -> None:
    module = nn.Linear(2, 1)
    exchange = Exchange(module)
    module(torch.ones(1, 2)).sum().backward()
    exchange()
    assert module.weight.grad is not None and module.weight.grad.tolist() == [[1.0, 1.0]]


def test_nothing_to_train() -> None:
    Exchange(nn.Linear(2, 1).requires_grad_(False))()
