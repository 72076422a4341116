"""What a recording sees of its input: every tensor in it, and every change that a replay would not."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dataio.batches import RayBatch
from engine.recording import Recording, copied, shapes, tensors
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


class FakeCuda:
    """What a recording asks of torch.cuda: captures that end as the work does, with an error after an error."""

    def __init__(self) -> None:
        self.capturing, self.stream, self.captures = False, "main", 0

    @contextmanager
    def graph(self, graph: Any, **_: Any) -> Iterator[None]:
        self.capturing, self.stream, self.captures = True, "capture", self.captures + 1
        try:
            yield
        except RuntimeError:  # torch leaves its stream then
            self.capturing = False
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
        self.capturing, self.stream = False, "main"

    def install(self, patch: pytest.MonkeyPatch) -> None:
        graph = SimpleNamespace(register_generator_state=lambda generator: None, replay=lambda: None)
        instead = {
            "graph": self.graph,
            "CUDAGraph": lambda: graph,
            "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
            "stream": lambda stream: nullcontext(),
            "current_stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
            "set_stream": lambda stream: setattr(self, "stream", "main"),
            "graph_pool_handle": lambda: (0, 1),
            "get_sync_debug_mode": lambda: "default",
            "set_sync_debug_mode": lambda mode: None,
        }
        for name, what in instead.items():
            patch.setattr(torch.cuda, name, what)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    made.install(monkeypatch)
    return made


def recording_of(cuda: FakeCuda, error: Exception | None, generators: list[torch.Generator]) -> tuple[Any, list[str]]:
    """A recording whose work draws, and raises `error` while it is captured; and what it says."""

    def work(given: Tensor) -> Tensor:
        drawn = given + torch.rand(2, generator=generators[0])
        if cuda.capturing and error is not None:
            raise error
        return drawn

    said: list[str] = []
    return Recording(work, key=lambda: 0, parameters=[], warn=said.append), said


def test_a_capture_that_fails_leaves_nothing_behind_and_is_told_once(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.recording.PATIENCE", 3)
    generators = [torch.Generator().manual_seed(3)]
    first = generators[0]
    recording, said = recording_of(cuda, RuntimeError("called a synchronizing CUDA operation\nmore"), generators)
    truth = torch.rand(2, generator=torch.Generator().manual_seed(3))
    for call in range(6):
        assert not said or call > 4  # a step may wait at first
        generators[0].manual_seed(3)
        assert torch.equal(recording(torch.zeros(2), generators), truth)
        assert (generators[0] is first) == (call < 2)  # the one that was captured is not used again
    assert cuda.captures == 1 and cuda.stream == "main" and recording.graph is None
    (line,) = said
    reason = "called a synchronizing CUDA operation (tests/engine/test_recording.py:"
    assert line.startswith(f"steps are not recorded as a CUDA graph, and take longer: {reason}")
    recording.key = lambda: 1  # other work is tried again, and the same reason is not told again
    for _ in range(4):
        recording(torch.zeros(2), generators)
    assert cuda.captures == 2 and len(said) == 1


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_memory_that_does_not_suffice_is_no_reason_against_recording(cuda: FakeCuda, error: Exception) -> None:
    """Who called takes smaller micro-batches, which are recorded."""
    generators = [torch.Generator().manual_seed(3)]
    recording, said = recording_of(cuda, error, generators)
    for _ in range(2):
        recording(torch.zeros(2), generators)
    with pytest.raises(type(error), match="out of memory"):
        recording(torch.zeros(2), generators)
    assert recording.refused is None and not said and cuda.stream == "main"
    for _ in range(2):
        recording(torch.zeros(2), generators)
    with pytest.raises(type(error), match="out of memory"):
        recording(torch.zeros(2), generators)
    assert cuda.captures == 2


def test_work_that_can_be_captured_is_replayed(cuda: FakeCuda) -> None:
    generators = [torch.Generator().manual_seed(3)]
    recording, said = recording_of(cuda, None, generators)
    for _ in range(5):
        recording(torch.zeros(2), generators)
    assert cuda.captures == 1 and recording.graph is not None and not said


@pytest.mark.cuda
def test_a_capture_that_fails_on_a_gpu_leaves_nothing_behind() -> None:
    """The host waits within a capture: what is drawn afterwards is as ever, and other work is recorded."""
    generators = [torch.Generator("cuda")]
    waits = [True]

    def work(given: Tensor) -> Tensor:
        drawn = given + torch.rand(2, generator=generators[0], device="cuda")
        if waits[0] and torch.cuda.is_current_stream_capturing():
            drawn.sum().item()
        return drawn

    recording = Recording(work, key=lambda: waits[0], parameters=[], warn=print)
    truth = torch.rand(2, generator=torch.Generator("cuda").manual_seed(3), device="cuda")
    for waits[0] in (True, False):
        for _ in range(5):
            generators[0].manual_seed(3)
            assert torch.equal(recording(torch.zeros(2, device="cuda"), generators), truth)
        assert (recording.graph is None) == waits[0] and torch.cuda.current_stream() == torch.cuda.default_stream()
        assert torch.rand(1000, device="cuda").add(1).mean() > 1
