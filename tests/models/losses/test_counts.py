"""Means over several ranks: gradients against those of all values in one place, with ranks that take turns here."""

import pytest
import torch
from torch import Tensor

from models.losses import base
from models.losses.base import Counts, mean_of, shared_mean


@pytest.fixture(autouse=True)
def among_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "several_ranks", lambda: True)


def evaluated(counts: Counts, values: Tensor, valid: Tensor) -> Tensor:
    """A sum of a mean over all, one over some, and one over nothing."""
    with counts.counting():
        return shared_mean(values.sin()) + 3 * mean_of(values.square(), valid) - shared_mean(values[:0])


def test_gradients_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, generator=generator, dtype=torch.float64)
    valid = torch.rand(12, generator=generator) > 0.4
    valid[:5] = False  # a rank that has none
    whole = x.clone().requires_grad_()
    (shared_mean(whole.sin()) + 3 * mean_of(whole.square(), valid)).backward()

    shares = [slice(0, 5), slice(5, 12)]
    parts = [x[share].clone().requires_grad_() for share in shares]
    all_counts = [Counts().double() for _ in shares]
    losses = [evaluated(*each) for each in zip(all_counts, parts, [valid[share] for share in shares], strict=True)]
    mean = torch.stack([counts.own for counts in all_counts]).mean(0)
    monkeypatch.setattr(base, "mean_across_ranks", lambda own: mean)
    for counts in all_counts:
        counts.exchange()
    for loss in losses:
        loss.backward()
    found = torch.cat([part.grad for part in parts if part.grad is not None]) / len(shares)  # the mean over ranks
    torch.testing.assert_close(found, whole.grad, rtol=1e-12, atol=1e-14)


def test_what_is_said_is_the_own_mean() -> None:
    values = torch.tensor([1.0, 3.0], requires_grad=True)
    counts = Counts()
    with counts.counting():
        assert shared_mean(values).item() == 2
        with torch.no_grad():
            assert shared_mean(values * 2).item() == 4
    assert counts.own[:2].tolist() == [2, 1]  # what has no gradient is not counted
    assert shared_mean(values).grad_fn is not None and counts.own[0] == 2  # outside


def test_a_gradient_asked_later_knows_counts_exchanged_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a recorded backward pass, which is replayed after each exchange."""
    values, counts = torch.ones(4, requires_grad=True), Counts()
    with counts.counting():
        loss = shared_mean(values)
    for others in (2.0, 4.0):
        monkeypatch.setattr(base, "mean_across_ranks", lambda own, others=others: own * others)
        counts.exchange()
        (gradient,) = torch.autograd.grad(loss, values, retain_graph=True)
        assert gradient.tolist() == [0.25 / others] * 4
