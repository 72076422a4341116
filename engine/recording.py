"""Work of always the same shapes on a GPU: recorded once, then replayed as one CUDA graph, instead of launch by launch.

A replay reads and writes the memory that the recorded work did, with the numbers that are there by then, and asks no
Python. So what Python decides must not change unnoticed: `settings` finds it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from utils.errors import first_line, out_of_memory

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 64  # calls without a replay after which the reason is said
InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


class Recording(Generic[InputT, ResultT]):
    """work(input), whose result and gradients a replay leaves where the recording left them, until the next one.

    The first call with a new key does the work as ever; the second one too, to see whether it waits for the GPU, which
    no recording can; the third records it. Work that waits, or cannot be recorded, is done as ever while the key is the
    same.

    The work may have a second part, then(result of the first), which becomes a graph of its own, so that what no
    recording can hold may happen between the two: ranks that exchange numbers, once a call whatever becomes of it.
    """

    def __init__(
        self,
        work: Callable[[InputT], ResultT],
        then: Callable[[ResultT], ResultT] | None = None,
        *,
        between: Callable[[], None] = lambda: None,
        key: Callable[[], Hashable],
        parameters: Iterable[nn.Parameter],
        warn: Callable[[str], None],
    ) -> None:
        """work: of an input, a tensor or a dataclass or mapping of such; gradients are those of `parameters`.

        between: called once, when work is done and then is not. key: what else the work depends on and a replay would
        not see. warn: called with why work is not recorded, once for each reason that lasts.
        """
        self.work, self.then, self.between = work, then, between
        self.key, self.parameters, self.warn = key, list(parameters), warn
        self.said: set[str] = set()  # reasons
        self.eager = 0  # calls since the last replay
        self.known: Hashable = None
        self.calls = 0  # with the known key
        self.met = False  # between the parts, in this call
        self.refused: str | None = None  # why this key's work is not recorded
        self.stream: Any = None
        self._forget()

    def _forget(self) -> None:
        self.graph: torch.cuda.CUDAGraph | None = None
        self.second: torch.cuda.CUDAGraph | None = None  # of the second part
        self.given: list[Tensor] = []
        self.gradients: list[Tensor | None] = []
        self.result: ResultT | None = None

    def __call__(self, given: InputT, generators: list[torch.Generator]) -> ResultT:
        """generators: all that the work draws from, each at the beginning of its stream; new ones where it fails.

        Raises the error of memory where that does not suffice: then who called takes smaller micro-batches.
        """
        self.met = False
        key = (self.key(), shapes(given), len(generators))
        if key != self.known:
            self._forget()
            self.known, self.calls, self.refused = key, 0, None
        self.calls += 1
        if self.calls == 1 or self.refused:
            self._tell()
            return self._done(given)
        try:
            if self.calls == 2:
                return self._rehearsed(given)
            if self.graph is None:
                self._record(given, generators)
        except RuntimeError as error:
            self._forget()
            generators[:] = map(_renewed, generators)
            self._refuse(error)
            return self._done(given)
        return self._replayed(given)

    def _done(self, given: InputT, within: Callable[[], AbstractContextManager[None]] = nullcontext) -> ResultT:
        """As ever; each part within a context of its own."""
        with within():
            result = self.work(given)
        if self.then is not None:
            self._meet()
            with within():
                result = self.then(result)
        return result

    def _meet(self) -> None:
        """What is between the parts; work that is done again, after a recording failed, would be the same then."""
        if not self.met:
            self.met = True
            self.between()

    def _refuse(self, error: RuntimeError) -> None:
        """Do without recordings while the key is the same; raises an error of memory again."""
        for each in _chain(error):  # the end of a capture that failed raises an error of its own
            if out_of_memory(each):
                self.known = None  # what fits is tried again
                raise each
        *_, first = _chain(error)
        self.refused = f"{first_line(first)[:200]} ({_place(first)})"

    def _tell(self) -> None:
        """Say why nothing is recorded, where that lasts: steps wait until capacities have been fitted, and then may."""
        self.eager += 1
        if self.refused is not None and self.eager >= PATIENCE and self.refused not in self.said:
            self.said.add(self.refused)
            self.warn(f"steps are not recorded as a CUDA graph, and take longer: {self.refused}")

    def _rehearsed(self, given: InputT) -> ResultT:
        """As ever, but in a stream of its own; raises RuntimeError where the host would wait for the GPU."""
        self.stream = self.stream or torch.cuda.Stream()
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                return self._done(given, waits_refused)
        finally:
            current.wait_stream(self.stream)

    def _record(self, given: InputT, generators: list[torch.Generator]) -> None:
        own, pool = copied(given), torch.cuda.graph_pool_handle()
        graph = self._captured(lambda: self.work(own), pool, generators)
        if self.then is not None:
            first, then = self.result, self.then
            assert first is not None
            self.second = self._captured(lambda: then(first), pool, [])
        self.graph, self.given = graph, tensors(own)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def _captured(
        self, part: Callable[[], ResultT], pool: Any, generators: list[torch.Generator]
    ) -> torch.cuda.CUDAGraph:
        """The graph of a part of the work, whose result is there from its first replay on."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            # Other threads may go on: the one that gathers pixels asks for memory that is pinned.
            with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
                self.result = part()
        except BaseException:
            _abandon(pool, before)
            raise
        return graph

    def _replayed(self, given: InputT) -> ResultT:
        assert self.graph is not None and self.result is not None
        for mine, now in zip(self.given, tensors(given), strict=True):
            mine.copy_(now)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        self.graph.replay()
        if self.second is not None:
            self._meet()
            self.second.replay()
        self.eager = 0
        return self.result


@contextmanager
def waits_refused() -> Iterator[None]:
    """Within, what would let the host wait for the GPU raises RuntimeError."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def _abandon(pool: Any, before: Any) -> None:
    """Undo what torch leaves behind when the end of a capture raises: its stream, its pool, the capture's generators.

    pool, before: the capture's pool of memory, and the stream that was the current one.
    """
    torch.cuda.set_stream(before)
    with suppress(Exception):  # where the capture has ended by itself, it no longer allocates there
        getattr(torch._C, "_cuda_endAllocateToPool")(torch.cuda.current_device(), pool)  # noqa: B009
    for own in torch.cuda.default_generators:
        own.graphsafe_set_state(_renewed(own).graphsafe_get_state())


def _renewed(generator: torch.Generator) -> torch.Generator:
    """One at the beginning of the same stream, that no graph knows."""
    return torch.Generator(generator.device).manual_seed(generator.initial_seed())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that were being handled when it was raised, the first one last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _place(error: BaseException) -> str:
    """File and line of ours from which an error came."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [(path, line) for path, line in frames if path.is_relative_to(ROOT) and "site-packages" not in path.parts]
    path, line = (ours or frames)[-1]
    return f"{path.relative_to(ROOT) if ours else path.name}:{line}"


def settings(modules: Iterable[nn.Module]) -> Hashable:
    """Every public attribute of the modules that is a plain number, text or tuple of such: what Python decides by."""
    return tuple(
        (name, value)
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_") and _plain(value)
    )


def _plain(value: object) -> bool:
    return (
        value is None
        or isinstance(value, bool | int | float | str)
        or (isinstance(value, tuple) and all(_plain(x) for x in value))
    )


def shapes(x: Any) -> Hashable:
    """What of a tensor, or of a dataclass, mapping or list of tensors and plain values, a recording cannot change."""
    if isinstance(x, Tensor):
        return tuple(x.shape), x.dtype, x.device
    if _has_parts(x):
        return tuple((name, shapes(part)) for name, part in _parts(x))
    return x if isinstance(x, Hashable) else repr(x)


def tensors(x: Any) -> list[Tensor]:
    """All tensors [*N] of a tensor, or of a dataclass, mapping or list of such."""
    if isinstance(x, Tensor):
        return [x]
    return [tensor for _, part in _parts(x) for tensor in tensors(part)] if _has_parts(x) else []


def copied(x: Any) -> Any:
    """The same in memory of its own."""
    if isinstance(x, Tensor):
        return x.clone()
    if not _has_parts(x):
        return x
    parts = {name: copied(part) for name, part in _parts(x)}
    if isinstance(x, Mapping):
        return parts
    return replace(x, **parts) if is_dataclass(x) and not isinstance(x, type) else type(x)(parts.values())


def _has_parts(x: Any) -> bool:
    return isinstance(x, Mapping | list | tuple) or (is_dataclass(x) and not isinstance(x, type))


def _parts(x: Any) -> Iterator[tuple[Any, Any]]:
    """What a dataclass, mapping or list is made of: equal ones in the same order, in whatever order they were made."""
    if isinstance(x, Mapping):
        yield from sorted(x.items(), key=lambda item: str(item[0]))
    elif is_dataclass(x):
        yield from ((part.name, getattr(x, part.name)) for part in fields(x))
    else:
        yield from enumerate(x)
