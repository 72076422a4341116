"""Update rules on a CPU against float64 and torch's own, and what they share: state, skipped steps, versions."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.optimizers.adam import Adam, AdamConfig
from models.optimizers.adamw import AdamwConfig
from models.optimizers.base import OptimizerConfig
from models.optimizers.rmsprop import Rmsprop, RmspropConfig
from models.optimizers.together import Optimizers
from utils.config.schedule import LinearSchedule

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


def test_lazy_rows_keep_value_and_moments() -> None:
    """Against Adam in float64, of which each number sees the steps with a gradient, and the count of all of them."""
    mine = parameters()
    optimizer = Adam(mine, lr=1e-2, betas=(0.9, 0.99), lazy=True)
    exact = [p.detach().double() for p in mine]
    means, squares = ([torch.zeros_like(p) for p in exact] for _ in range(2))
    for step in range(1, 20):
        set_gradients(step, mine)
        for p in mine:
            assert p.grad is not None
            p.grad *= torch.rand(p.shape, generator=torch.Generator().manual_seed(step)) < 0.5
        optimizer.step()
        for p, own, mean, square in zip(mine, exact, means, squares, strict=True):
            assert p.grad is not None
            grad, seen = p.grad.double(), p.grad != 0
            mean[seen] = (0.9 * mean + 0.1 * grad)[seen]
            square[seen] = (0.99 * square + 0.01 * grad.square())[seen]
            moved = 1e-2 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.99**step)).sqrt() + 1e-8)
            own[seen] -= moved[seen]
    for p, own, square in zip(mine, exact, squares, strict=True):
        torch.testing.assert_close(p.detach().double(), own, atol=2e-6, rtol=2e-6)
        assert (optimizer.state[p]["exp_avg_sq"][square == 0] == 0).all()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lazy_where_all_have_a_gradient_is_adam(decay: float) -> None:
    one, other = parameters(), parameters()
    rules = [Adam(one, lr=1e-2, lazy=True, weight_decay=decay), Adam(other, lr=1e-2, weight_decay=decay)]
    for step in range(5):
        for p, q in zip(one, other, strict=True):
            p.grad = q.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step)) + 1e-3
        for rule in rules:
            rule.step()
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_rmsprop_is_that_of_plenoxels(lazy: bool) -> None:
    mine = parameters()
    optimizer = Rmsprop(mine, lr=1e-2, beta=0.9, eps=1e-6, lazy=lazy)
    exact = [p.detach().double() for p in mine]
    squares = [torch.zeros_like(p) for p in exact]
    for step in range(20):
        set_gradients(step, mine)
        assert mine[4].grad is not None
        mine[4].grad *= torch.rand(3000, 1, generator=torch.Generator().manual_seed(step)) < 0.5
        optimizer.step()
        for p, own, square in zip(mine, exact, squares, strict=True):
            assert p.grad is not None
            grad = p.grad.double()
            found = torch.where(square == 0, grad.square(), 0.9 * square + 0.1 * grad.square())
            square.copy_(torch.where((grad == 0) & lazy, square, found))
            own -= 1e-2 * grad / (square.sqrt() + 1e-6)
    for p, own, square in zip(mine, exact, squares, strict=True):
        torch.testing.assert_close(p.detach().double(), own, atol=5e-6, rtol=5e-6)
        torch.testing.assert_close(optimizer.state[p]["square_avg"].double(), square, atol=0, rtol=2e-5)


def test_rmsprop_after_many_steps_is_that_of_torch() -> None:
    """They differ by what they start from, which is forgotten: beta^400."""
    mine, theirs = parameters(), parameters(torch.float64)
    rules: list[torch.optim.Optimizer] = [
        Rmsprop(mine, lr=0.0, beta=0.9), torch.optim.RMSprop(theirs, lr=0.0, alpha=0.9)
    ]  # fmt: skip
    for step in range(400):
        set_gradients(step, mine, theirs)
        for rule in rules:
            rule.step()
    before = [p.detach().clone() for p in mine]
    for rule in rules:
        rule.param_groups[0]["lr"] = 1e-2
        rule.step()
    for p, q, b in zip(mine, theirs, before, strict=True):
        torch.testing.assert_close(p.detach().double(), q.detach(), atol=2e-5, rtol=2e-5)
        assert not torch.equal(p, b)


def mixed(lists: list[list[nn.Parameter]]) -> Optimizers:
    """Each rule on a list."""
    configs: list[OptimizerConfig] = [
        AdamConfig(lr=1e-2), AdamConfig(lr=1e-2, lazy=True), RmspropConfig(lr=1e-3, lazy=True),
        AdamwConfig(lr=1e-3, weight_decay=0.1, schedule=LinearSchedule(start=1, end=0)),
    ]  # fmt: skip
    return Optimizers(list(zip(configs, lists, strict=True)))


def test_rules_together_are_the_rules_alone_and_share_a_state() -> None:
    together, alone = ([parameters() for _ in range(4)] for _ in range(2))
    optimizer = mixed(together)
    singles = [Optimizers([(c, p)]) for c, p in zip([
        AdamConfig(lr=1e-2), AdamConfig(lr=1e-2, lazy=True), RmspropConfig(lr=1e-3, lazy=True),
        AdamwConfig(lr=1e-3, weight_decay=0.1, schedule=LinearSchedule(start=1, end=0)),
    ], alone, strict=True)]  # fmt: skip
    for step in range(6):
        set_gradients(step, *together, *alone)
        for each in (optimizer, *singles):
            each.set_rates(step / 6, 0.5)
            each.step()
        if step == 2:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = mixed(together)
            optimizer.load_state_dict(state)
    for a, b in zip(together, alone, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-3, 5e-3, 5e-4, 5e-4 / 6])


def test_no_rule_takes_a_skipped_step_and_none_counts_it() -> None:
    lists = [parameters() for _ in range(4)]
    optimizer = mixed(lists)
    set_gradients(0, *lists)
    optimizer.step()
    before = copy.deepcopy([lists, optimizer.state_dict()["state"]])
    set_gradients(1, *lists)
    lists[2][2].grad = torch.full_like(lists[2][2], torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    for old, new in zip(before[0], lists, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(old, new, strict=True))
    for index, entries in optimizer.state_dict()["state"].items():
        assert all(torch.equal(before[1][index][key], value) for key, value in entries.items())


def test_what_is_forgotten_starts_anew() -> None:
    """Moments and counts in place: the next step is the first one of an optimizer that has just been made."""
    lists, fresh = [parameters() for _ in range(4)], [parameters() for _ in range(4)]
    optimizer = mixed(lists)
    for step in range(3):
        set_gradients(step, *lists)
        optimizer.step()
    places = {value.data_ptr() for entries in optimizer.state.values() for value in entries.values()}
    optimizer.forget([parameter for own in lists for parameter in own[1:]])
    assert all((value == 0).all() for own in lists for p in own[1:] for value in optimizer.state[p].values())
    assert all(any((value != 0).any() for value in optimizer.state[own[0]].values()) for own in lists)
    with torch.no_grad():
        for own, new in zip(lists, fresh, strict=True):
            for p, q in zip(own, new, strict=True):
                p.copy_(q)
    other = mixed(fresh)
    set_gradients(9, *lists, *fresh)
    optimizer.step()
    other.step()
    assert all(torch.equal(p, q) for a, b in zip(lists, fresh, strict=True) for p, q in zip(a[1:], b[1:], strict=True))
    assert {value.data_ptr() for entries in optimizer.state.values() for value in entries.values()} == places
