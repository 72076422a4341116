# mypy: disable-error-code="arg-type, assignment, misc, attr-defined"
"""CUDA graphs of a GPU that is not there: what is done while one is recorded can be done again, at the same memory.

Stricter than the real ones: what waits, moves or draws numbers where that is not allowed is refused with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes


def place_in_memory(x: Tensor) -> int:
    """Of its storage."""
    return x.untyped_storage().data_ptr()


def is_work(function: Any, given: Any, out: Any) -> bool:
    """Whether an operation writes anything: a GPU then has a kernel or a copy to do. given: all that it was given."""
    there = {place_in_memory(x) for x in pytree.tree_leaves(given) if isinstance(x, Tensor)}
    results = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
    return function._schema.is_mutable or any(place_in_memory(x) not in there for x in results)


class Tape:
    """A torch.cuda.CUDAGraph. All tensors are those of the CPU within the device's."""

    now: Tape | None = None  # which is being recorded
    strict = False  # whether waiting is an error, as torch.cuda.set_sync_debug_mode has it
    made = 0  # how many have been recorded
    nodes = 0  # of the last one: kernels, copies and fills

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []
        self.own: dict[int, Tensor] = {}  # by place in memory, what is made while recording; kept alive
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # what was there before: all of its memory, its content
        self.generators: list[tuple[torch.Generator, Tensor]] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append((generator, generator.get_state()))

    def enter(self, given: list[Tensor]) -> None:
        """Tensors that the next job reads or writes."""
        for x in given:
            if place_in_memory(x) not in self.own and place_in_memory(x) not in self.before:
                memory = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
                self.before[place_in_memory(x)] = memory, memory.clone()

    def operation(self, function: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        """What was done; it can be done again, into the same results."""
        drawn, known = kwargs.get("generator"), {generator.initial_seed() for generator, _ in self.generators}
        if drawn is not None and drawn.initial_seed() not in known:
            raise RuntimeError(f"{function}: a generator that the graph does not know")
        given = [place_in_memory(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        results = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
        fresh = [place_in_memory(x) not in given for x in results]
        for x in results:
            if place_in_memory(x) not in self.before:
                self.own[place_in_memory(x)] = x

        def again() -> None:
            found = [x for x in pytree.tree_leaves(function(*args, **kwargs)) if isinstance(x, Tensor)]
            for mine, new, is_fresh in zip(results, found, fresh, strict=True):
                if is_fresh:
                    mine.copy_(new)

        if is_work(function, (args, kwargs), out):
            self.jobs.append(again)

    def finish(self) -> None:
        """As if nothing had been done so far: a recording does not execute."""
        for memory, content in self.before.values():
            memory.copy_(content)
        for generator, state in self.generators:
            generator.set_state(state)

    def replay(self) -> None:
        with _disable_current_modes(), torch.no_grad():
            for job in self.jobs:
                job()


@contextmanager
def recording(tape: Tape, **_: object) -> Iterator[None]:
    """torch.cuda.graph."""
    Tape.now = tape
    Tape.made += 1
    try:
        yield
    finally:
        Tape.now, Tape.nodes = None, len(tape.jobs)
        with _disable_current_modes(), torch.no_grad():
            tape.finish()


def set_mode(mode: str) -> None:
    """torch.cuda.set_sync_debug_mode."""
    Tape.strict = mode == "error"
