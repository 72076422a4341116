"""Threads that take pieces of a kernel from one another: every item once, whoever takes it, asleep or not."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
import torch
import warp as wp
from torch import Tensor

from models.kernels.runtime import launch, thread_pool

CPU = torch.device("cpu")


@wp.kernel(enable_backward=False)
def _count(first: int, add: float, times: wp.array(dtype=float), item: wp.array(dtype=int)):  # type: ignore[valid-type]
    i = first + wp.tid()
    times[i] = times[i] * 0.5 + add
    item[i] = i


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    launch.set_own_threads(request.param)
    yield request.param
    launch.set_own_threads(1)


def counted(count: int, **options: int) -> tuple[Tensor, Tensor]:
    times, item = torch.zeros(count + 7), torch.full((count + 7,), -1, dtype=torch.int32)
    launch.launch(_count, count, [1.0, times, item], device=CPU, **options)
    return times, item


def every_item_once(count: int, times: Tensor, item: Tensor) -> bool:
    once = bool((times[:count] == 1).all() and (times[count:] == 0).all() and (item[count:] == -1).all())
    return once and torch.equal(item[:count], torch.arange(count, dtype=torch.int32))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 33, 1000, 4097])
@pytest.mark.parametrize("block", [1, 7, 16])
def test_every_item_once(threads: int, count: int, block: int) -> None:
    assert all(every_item_once(count, *counted(count, block=block, grain=1)) for _ in range(20))


def test_one_kernel_after_another(threads: int) -> None:
    """Thousands of them, some after a rest in which the others fall asleep: none sees what another was told."""
    for turn in range(3000):
        count = 1 + turn * 37 % 500
        assert every_item_once(count, *counted(count, grain=1)), turn
        if turn % 300 == 0:
            time.sleep(0.01)


def test_each_kernel_has_a_number_of_its_own() -> None:
    """By which a thread that was held up with one piece in mind sees that it is another kernel's now."""
    launch.set_own_threads(2)
    seen = []
    for _ in range(5):
        assert every_item_once(1000, *counted(1000, grain=1))
        seen.append(int(launch._own.team_of(2).memory[0]))
    launch.set_own_threads(1)
    assert all((word & 0xFFFFFFFF) == 0xFFFFFFFF for word in seen)  # there is no piece to take
    assert [word >> 32 for word in seen] == list(range(seen[0] >> 32, (seen[0] >> 32) + 5))


def test_denormals_are_what_they_are_to_the_caller(threads: int) -> None:
    """Whoever takes a piece; also after the caller has changed its mind."""
    for flush, expected in ((False, 1e-40), (True, 0.0), (False, 1e-40)):
        torch.set_flush_denormal(flush)
        times, item = torch.zeros(20_000), torch.zeros(20_000, dtype=torch.int32)
        launch.launch(_count, 20_000, [2e-40, times, item], device=CPU, grain=1)
        times.mul_(1.0)
        launch.launch(_count, 20_000, [0.0, times, item], device=CPU, grain=1)
        torch.set_flush_denormal(False)
        assert torch.equal(times, torch.full_like(times, expected))


def test_callers_at_once_have_teams_of_their_own() -> None:
    found: list[bool] = []

    def work() -> None:
        launch.set_own_threads(2)
        found.extend(every_item_once(n, *counted(n, grain=1)) for n in range(100, 600))

    callers = [threading.Thread(target=work) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 1500 and all(found)


def test_a_team_lives_as_long_as_its_last_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that made it may end while others still look at its memory."""
    made: list[weakref.ref[thread_pool.ThreadPool]] = []
    looking, end = threading.Event(), threading.Event()

    def look_out(self: thread_pool.ThreadPool, i: int) -> None:
        made.append(weakref.ref(self))
        looking.set()
        end.wait(5)

    def work() -> None:
        launch.set_own_threads(2)
        assert every_item_once(1000, *counted(1000, grain=1))

    monkeypatch.setattr(thread_pool.ThreadPool, "help", look_out)
    caller = threading.Thread(target=work)
    caller.start()
    caller.join()
    assert looking.wait(5) and made[0]() is not None
    end.set()
    for _ in range(100):
        gc.collect()
        if made[0]() is None:
            return
        time.sleep(0.02)
    pytest.fail("the team is kept for ever")


def test_arguments_that_do_not_fit() -> None:
    counted(3)
    with pytest.raises(TypeError, match="3 arguments of a kernel: expected 4"):
        launch.launch(_count, 3, [1.0, torch.zeros(3)], device=CPU)
    with pytest.raises(TypeError):
        launch.launch(_count, 3, ["one", torch.zeros(3), torch.zeros(3, dtype=torch.int32)], device=CPU)


def test_threads_that_help_sleep_when_nothing_comes() -> None:
    launch.set_own_threads(2)
    counted(1000, grain=1)
    awake = launch._own.team_of(2).awake
    launch.set_own_threads(1)
    for _ in range(100):
        if not awake[0]:
            return
        time.sleep(0.02)
    pytest.fail("a thread looks out for ever")


@pytest.mark.parametrize("shape", [(0,), (7,), (0, 3), (5, 3), (4, 0), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64, torch.uint8])
def test_a_tensor_is_described_as_by_warp(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    whole = torch.zeros(shape, dtype=dtype, device=device)
    for x in (whole, whole.transpose(0, -1), whole[1:], whole[..., ::2]):
        mine, theirs = launch.as_warp(x), wp.from_torch(x, return_ctype=True)
        assert type(mine) is type(theirs) and bytes(mine) == bytes(theirs)
