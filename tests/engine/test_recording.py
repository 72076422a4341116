"""What a recording sees of its input: every tensor in it, and every change that a replay would not."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dataio.batches import RayBatch
from engine.recording import copied, shapes, tensors
from tests.support.analytic import rays_at_sphere


@dataclass(frozen=True)
class Inner:
    value: Tensor
    name: str = "x"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    named: dict[str, Any] = field(default_factory=dict)
    listed: tuple[Any, ...] = ()


def made(*names: str, rays: int = 3) -> Outer:
    named = {name: torch.full((rays,), float(ord(name))) for name in names}
    return Outer(Inner(torch.zeros(2)), named, ([torch.ones(1)], {"deep": Inner(torch.ones(4))}, None))


def test_tensors_in_mappings_and_lists_are_found_in_one_order() -> None:
    found = tensors(made("b", "a"))
    assert [len(x) for x in found] == [2, 3, 3, 1, 4]
    other = tensors(made("a", "b"))
    assert all(map(torch.equal, found, other)) and found[1][0] == ord("a")


def test_a_copy_has_memory_of_its_own() -> None:
    given = made("b", "a")
    own = copied(given)
    assert isinstance(own, Outer) and isinstance(own.listed, tuple) and isinstance(own.listed[0], list)
    assert own.named.keys() == given.named.keys() and own.inner.name == "x" and own.listed[2] is None
    for mine, theirs in zip(tensors(own), tensors(given), strict=True):
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()


def test_shapes_tell_what_a_replay_cannot_follow() -> None:
    given = shapes(made("b", "a"))
    assert hash(given) == hash(shapes(made("a", "b"))) and given == shapes(made("a", "b"))
    assert given != shapes(made("a")) and given != shapes(made("a", "c")) and given != shapes(made("a", "b", rays=4))
    halves = replace(made("a", "b"), named={"a": torch.zeros(3).half(), "b": torch.zeros(3)})
    assert given != shapes(halves) != shapes(replace(halves, inner=Inner(torch.zeros(2), "y")))


def test_all_of_a_batch_is_seen() -> None:
    batch = RayBatch(rays_at_sphere(6), torch.rand(6, 3), mask=torch.rand(6), further={"normal": torch.rand(6, 3)})
    part = batch.split(3)[1]
    found = tensors(part)
    seen = [part.rays.origins, part.color, part.mask, part.pixel("normal"), part.total("normal"), part.total("mask")]
    assert all(any(x is other for other in found) for x in seen)
    before = copied(part)
    for mine, now in zip(tensors(before), tensors(batch.split(3)[0]), strict=True):
        mine.copy_(now)
    assert torch.equal(before.pixel("normal"), batch.further["normal"][:3])
    assert shapes(part) != shapes(replace(part, further={}))
