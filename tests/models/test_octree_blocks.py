"""Features in the blocks of an octree: interpolation against float64, and what a plan does to the blocks."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.encodings.octree import Octree
from models.encodings.octree_blocks import OctreeBlocks, OctreeBlocksConfig
from models.networks.mlp import MlpConfig
from tests.support.second_order import check_pullback

LEVELS = [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, *[1] * 5]  # of eight blocks the third is split


def made(**keys: Any) -> OctreeBlocks:
    """Fifteen blocks of two sizes."""
    settings = {"blocks": 22, "first": 1, "deepest": 2, "corners": 4, "features": 5, "plan": (0.3, 0.6), **keys}
    torch.manual_seed(0)
    encoding = OctreeBlocksConfig(**{"network": MlpConfig(layers=2, width=16), **settings}).build()
    encoding._lay_out(Octree.of(LEVELS, 2))
    return encoding


def points(count: int = 300, spread: float = 2.4) -> Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * spread


def rows_of(encoding: OctreeBlocks) -> Tensor:
    """[B corners^3, F] float64, differentiable in the network's parameters, which become such numbers too."""
    network = encoding.network.double()
    center = torch.tensor(encoding.tree.centers())
    scale = torch.tensor(2 * encoding.tree.levels / encoding.tree.deepest - 1)[:, None]
    return network._forward(encoding.octaves(torch.cat([center, scale], -1))).view(-1, encoding.config.features)


def reference(x: Tensor, rows: Tensor, encoding: OctreeBlocks) -> Tensor:
    """Point by point and corner by corner; x varies fastest. x: [M, 3] float64."""
    tree, n = encoding.tree, encoding.config.corners
    centers, half = torch.tensor(tree.centers()), torch.tensor(tree.half_sides())
    near = x.detach().clamp(-1 + 1e-12, 1 - 1e-12)
    block = ((near[:, None] - centers).abs() <= half[:, None]).all(-1).int().argmax(1)
    u = (((x - centers[block]) / half[block, None]).clamp(-1, 1) + 1) * (n - 1) / 2
    cell = u.detach().floor().clamp_max(n - 2)
    value = torch.zeros(len(x), rows.shape[1], dtype=x.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        place = cell + torch.tensor(corner)
        weight = torch.where(torch.tensor(corner) == 1, u - cell, 1 - (u - cell)).prod(1)
        row = block * n**3 + (place @ torch.tensor([1.0, n, n * n], dtype=x.dtype)).long()
        value = value + weight[:, None] * rows[row]
    return torch.cat([x, value], 1)


def test_features_are_those_of_the_network_at_a_block() -> None:
    encoding, x = made(), points()
    with torch.no_grad():
        found = encoding(x.view(3, 100, 3))
        truth = reference(x.double(), rows_of(copy.deepcopy(encoding)), encoding)
    torch.testing.assert_close(found.view(-1, 8).double(), truth, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoding.features(x), encoding(x)[:, 3:]) and encoding.keeps_input


def test_gradients_of_the_network() -> None:
    encoding, x = made(), points()
    exact = copy.deepcopy(encoding)
    rows = rows_of(exact)
    truth = torch.autograd.grad(reference(x.double(), rows, encoding).sin().sum(), [*exact.network.parameters()])
    found = torch.autograd.grad(encoding(x).sin().sum(), [*encoding.network.parameters()])
    for mine, wanted in zip(found, truth, strict=True):
        torch.testing.assert_close(mine.double(), wanted, atol=1e-3, rtol=1e-4)


def test_the_input_gradient_and_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = made()
    table = torch.randn(len(encoding.tree) * encoding.rows, 5, generator=torch.Generator().manual_seed(3))

    def with_vjp(p: Tensor, t: Tensor) -> Any:
        monkeypatch.setattr(encoding, "_table", lambda block: (t, block))
        return encoding.with_vjp(p)

    check_pullback(with_vjp, lambda p, t: reference(p, t, encoding), points(), table, torch.device("cpu"))


def test_only_blocks_that_are_touched_are_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, x = made(), torch.tensor([[-0.9, -0.9, -0.9], [-0.8, 0.2, -0.9], [-0.1, -0.3, -0.2]])
    with torch.no_grad():
        wanted = encoding(x)
    emitted, emit = [], encoding._emit

    def counted(place: Tensor) -> Tensor:
        emitted.append(len(place))
        return emit(place)

    monkeypatch.setattr(encoding, "_emit", counted)
    torch.testing.assert_close(encoding(x), wanted, atol=1e-6, rtol=0)
    with torch.no_grad():
        assert torch.equal(encoding(x), wanted)  # as the network has not changed
    assert emitted == [2]
    assert encoding(x[:0]).shape == (0, 8) and encoding(x[:0])[..., 3:].sum().requires_grad
    with torch.no_grad():
        encoding.network.linears()[-1].bias.add_(1)
        torch.testing.assert_close(encoding(x)[:, 3:], wanted[:, 3:] + 1, atol=1e-6, rtol=0)


def observed(encoding: OctreeBlocks, *cells: tuple[int, int, int]) -> None:
    """As if all of the error had been in these of the finest cells, 4 on each axis."""
    error = torch.zeros(4, 4, 4, dtype=torch.int64)
    for cell in cells:
        error[cell] += 1 << 24
    encoding.feedback.own_error += error.flatten()


def test_the_average_is_of_shares_of_the_error() -> None:
    encoding = made()
    for progress in (0.001, 0.0015, 0.002, 0.0021, 0.1):
        observed(encoding, (0, 1, 2), (0, 1, 2), (3, 3, 3))
        assert not encoding.refresh(progress)
    assert encoding.average[0, 1, 2] == pytest.approx(2 / 3 * (1 - 0.95**3)) and encoding.counted.tolist() == [100, 0]
    assert encoding.average.sum() == pytest.approx(1 - 0.95**3) and encoding.feedback.read().error.sum() == 0


def test_blocks_go_where_the_error_is() -> None:
    """The budget is one more split than fits: what nobody sees is merged, and the block with the error split."""
    encoding = made()
    observed(encoding, (3, 3, 3))
    before = encoding.copy.data_ptr()
    assert not encoding.refresh(0.2) and encoding.refresh(0.3) and not encoding.refresh(0.3)
    assert encoding.tree.levels.tolist() == [1] * 7 + [2] * 8
    assert encoding.latest_change() == "has 15 blocks of levels 1 to 2 (1 split, 1 merged)"
    assert encoding.generation == 1 and encoding.copy.data_ptr() == before
    assert encoding.block_of.view(4, 4, 4)[2:, 2:, 2:].unique().tolist() == list(range(7, 15))
    assert encoding.levels.tolist() == [1] * 7 + [2] * 8 + [-1] * 7
    with torch.no_grad():
        truth = reference(points().double(), rows_of(copy.deepcopy(encoding)), encoding)
        torch.testing.assert_close(encoding(points()).double(), truth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("remember", [True, False])
def test_a_split_that_did_not_help_is_not_tried_again_where_that_is_remembered(remember: bool) -> None:
    """The children of a block had as much error as it has now."""
    encoding = made(remember=remember)
    encoding.average[3, 3, 3] = 1.0
    for levels in [1] * 7 + [2] * 8, [1] * 8:
        encoding._lay_out(Octree.of(levels, 2))
        encoding._plan()
    assert encoding.tree.levels.tolist() == ([1] * 8 if remember else [1] * 7 + [2] * 8)


def test_several_plans_at_once_are_one() -> None:
    encoding = made()
    observed(encoding, (0, 0, 0))
    assert encoding.refresh(0.9) and encoding.generation == 2 and not encoding.refresh(1.0)
    assert encoding.counted.tolist() == [1000, 2]


def test_the_layout_is_that_of_the_state() -> None:
    encoding, x = made(), points()
    observed(encoding, (3, 3, 3), (0, 0, 0))
    encoding.refresh(0.4)
    observed(encoding, (1, 1, 1))
    encoding.feedback.fold()  # as for a checkpoint
    other = OctreeBlocksConfig.model_validate(encoding.config.model_dump()).build()
    other.load_state_dict(copy.deepcopy(encoding.state_dict()))
    for progress in (0.4, 0.7):
        assert other.refresh(progress) == encoding.refresh(progress)
        assert np.array_equal(other.tree.levels, encoding.tree.levels) and other.generation == encoding.generation
        with torch.no_grad():
            assert torch.equal(other(x), encoding(x))
        assert all(map(torch.equal, other.average, encoding.average))
    for levels, words in ([1] * 9, "do not fill the cube"), ([-1] + [1] * 8, "with gaps"), ([3] * 9, "do not fill"):
        bad = torch.full((22,), -1, dtype=torch.int8)
        bad[: len(levels)] = torch.tensor(levels)
        with pytest.raises(ValueError, match=words):
            other.load_state_dict(encoding.state_dict() | {"levels": bad})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"first": 3}, "at most `deepest`, 2"),
        ({"blocks": 7}, "`blocks` should be at least 8"),
        ({"blocks": 1 << 16, "corners": 32, "features": 64}, "lower `corners`"),
        ({"plan": (0.5, 0.2)}, "should ascend"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**keys)
