"""Adam on a CPU against torch's own in float64, and what it shares with it: state, skipped steps, versions."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.optimizers import Adam

SHAPES = [(), (1,), (17,), (5, 7), (3000, 2)]


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(2)
    return [nn.Parameter(torch.randn(shape, generator=g).to(dtype)) for shape in SHAPES]


def set_gradients(step: int, *models: list[nn.Parameter]) -> None:
    """The same for all; of rows that nobody has seen none, and of tiny and large size."""
    g = torch.Generator().manual_seed(step)
    for i, shape in enumerate(SHAPES):
        grad = torch.randn(shape, generator=g) * 10.0 ** (2 * i - 6)
        if len(shape) == 2:
            grad[::3] = 0
        for model in models:
            model[i].grad = grad.to(model[i].dtype)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("options", [{}, {"betas": (0.9, 0.99), "eps": 1e-12, "weight_decay": 0.01}])
def test_steps_are_those_of_torch(decoupled: bool, options: dict[str, Any]) -> None:
    mine, exact = parameters(), parameters(torch.float64)
    groups, others = ([{"params": of[:2], "lr": 3e-3}, {"params": of[2:]}] for of in (mine, exact))
    ours = Adam(groups, lr=1e-2, decoupled=decoupled, **options)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    settings: dict[str, Any] = {"weight_decay": 0.0, **options}
    theirs = kind(others, lr=1e-2, **settings)  # type: ignore[arg-type]
    for step in range(20):
        set_gradients(step, mine, exact)
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 3e-3 / (1 + step)
            optimizer.step()
    for a, b in zip(mine, exact, strict=True):
        torch.testing.assert_close(a.detach().double(), b.detach(), atol=2e-6, rtol=2e-6)


def test_a_skipped_step_changes_nothing_and_is_not_counted() -> None:
    mine = parameters()
    optimizer = Adam(mine, lr=1e-2)
    set_gradients(0, mine)
    optimizer.step()
    before = [p.detach().clone() for p in mine], copy.deepcopy(optimizer.state_dict())
    set_gradients(1, mine)
    mine[2].grad = torch.full_like(mine[2], torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(mine, before[0], strict=True))
    for old, new in zip(before[1]["state"].values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    optimizer.found_inf = torch.tensor(0.0)
    set_gradients(1, mine)
    optimizer.step()
    assert not torch.equal(mine[2], before[0][2])


def test_state_goes_to_torch_and_back() -> None:
    """A run that began on a GPU goes on here, and the other way round."""
    mine, theirs = parameters(), parameters()
    ours, other = Adam(mine, lr=1e-2), torch.optim.Adam(theirs, lr=1e-2, fused=True)
    optimizers: list[torch.optim.Optimizer] = [ours, other]
    for step in range(6):
        set_gradients(step, mine, theirs)
        for optimizer in optimizers:
            optimizer.step()
        if step == 2:
            states = [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in optimizers]
            for optimizer, state in zip(optimizers, reversed(states), strict=True):
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), atol=1e-6, rtol=1e-6)


def test_what_was_computed_from_a_parameter_can_tell_that_it_is_out_of_date() -> None:
    mine = parameters()
    optimizer, before = Adam(mine, lr=1e-2), [p._version for p in mine]
    set_gradients(0, mine)
    optimizer.step()
    assert all(p._version > version for p, version in zip(mine, before, strict=True))


def test_what_has_no_gradient_stays() -> None:
    mine = parameters()
    kept: Tensor = mine[1].detach().clone()
    optimizer = Adam(mine, lr=1e-2)
    set_gradients(0, mine)
    mine[1].grad = None
    optimizer.step()
    assert torch.equal(mine[1], kept) and mine[1] not in optimizer.state
