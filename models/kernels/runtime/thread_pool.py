"""Threads of a CPU that take the pieces of a kernel from one another, without Python between the pieces.

A training step starts a kernel every millisecond, and to wake a thread takes a tenth of one. So those that help look
out for the next kernel for a while, in native code, before they sleep; the caller does not wait for them to wake up.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp

from models.kernels.runtime.compiled import Compiled
from models.kernels.runtime.native import Longs

PATIENCE = 1e-3  # seconds for which a thread looks out before it sleeps
TRIAL, TRIALS = 4096, 5  # looks that are timed, and how often: other work may come between
MOST_BYTES = 4096  # of a kernel's arguments, as below
JOB, AWAKE, LINE = 16, 32, 8  # words of a team's memory, as below


class ThreadPool:
    """As many threads, >= 2, with the one that makes it, which alone calls `run`."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.memory = torch.zeros(AWAKE + LINE * threads, dtype=torch.int64)
        self.memory[0] = -1  # there is no piece to take
        self.job = (ctypes.c_longlong * 8).from_address(self.memory.data_ptr() + 8 * JOB)
        self.awake = (ctypes.c_longlong * (LINE * threads)).from_address(self.memory.data_ptr() + 8 * AWAKE)
        words = wp.from_torch(self.memory, return_ctype=True)
        self.compiled = Compiled(_take_pieces, [words, 0, 0])
        self.lead, trial = (self.compiled.call(1, [words, looks, AWAKE]) for looks in (0, TRIAL))
        looks = max(int(TRIAL * PATIENCE / min(_seconds(trial) for _ in range(TRIALS))), 1)
        places = range(AWAKE, AWAKE + LINE * (threads - 1), LINE)
        self.workers = [self.compiled.call(1, [words, looks, place]) for place in places]
        self.pool = ThreadPoolExecutor(threads - 1, "kernel")

    def run(self, kernel: Compiled, count: int, size: int, inputs: Sequence[Any]) -> None:
        """The kernel for `count` items, in pieces of `size` and a rest. The first input, a piece's first item, is 0."""
        pieces = -(-count // size)
        whole, last = kernel.bounds(size), kernel.bounds(count - (pieces - 1) * size)
        arguments = kernel.arguments(inputs)
        assert ctypes.sizeof(arguments) <= MOST_BYTES
        places = (ctypes.addressof(x) for x in (whole, last, arguments))
        self.job[:] = [pieces, size, kernel.address, *places, ctypes.sizeof(arguments), 0]
        for i in range(self.threads - 1):
            if not self.awake[LINE * i]:
                self.awake[LINE * i] = 1
                self.pool.submit(self.help, i)
        self.lead()

    def help(self, i: int) -> None:
        """What the other threads do until nothing has come for a while; the memory is there as long as they look."""
        self.workers[i]()


def _seconds(work: Callable[[], None]) -> float:
    """For which work lasts, at least a microsecond."""
    begun = time.perf_counter()
    work()
    return max(time.perf_counter() - begun, 1e-6)


# Words of the memory: 0, in its upper half a kernel's number and in its lower the next piece to take, more than there
# are where there is none; 8, how many pieces are done; from 16 on the job, and whether denormals are zeros to its
# thread; from 32 on, 8 words apart, whether a thread that helps is awake or about to be. It says itself that it is not:
# Python would hear of it only when the thread that leads leaves its lock.
@wp.func_native(
    """
#if !defined(__CUDA_ARCH__)
    typedef void (*Function)(void*, void*);
    enum { PIECES, SIZE, FUNCTION, BOUNDS, LAST, ARGUMENTS, BYTES, CONTROL, MOST_BYTES = 4096 };
    unsigned long long *ticket = (unsigned long long*)memory.data, *done = ticket + 8;
    long long* job = memory.data + 16;
    auto word = [&](int i) { return __atomic_load_n(job + i, __ATOMIC_RELAXED); };
    auto look_again = [] {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    };
    auto take_piece = [&]() -> bool {
        unsigned long long now = __atomic_load_n(ticket, __ATOMIC_ACQUIRE);
        for (;;) {
            const long long piece = now & 0xffffffffull, pieces = word(PIECES), size = word(SIZE);
            if (piece >= pieces) return false;
            const long long bounds = word(piece == pieces - 1 ? LAST : BOUNDS), from = word(ARGUMENTS);
            const long long function = word(FUNCTION), bytes = word(BYTES), control = word(CONTROL);
            // The job is described anew only while there is no piece to take: what was read is true if this succeeds.
            const bool taken =
                __atomic_compare_exchange_n(ticket, &now, now + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
            if (!taken) continue;
#if defined(__x86_64__)
            if (patience > 0) __builtin_ia32_ldmxcsr((unsigned)control);
#endif
            alignas(16) char arguments[MOST_BYTES];
            __builtin_memcpy(arguments, (const void*)from, (size_t)bytes);
            *(int*)arguments = (int)(piece * size);
            ((Function)function)((void*)bounds, arguments);
            __atomic_fetch_add(done, 1ull, __ATOMIC_RELEASE);
            return true;
        }
    };
    if (patience > 0) {
        for (int looks = 0; looks < patience; ++looks) {
            if (take_piece()) looks = 0;
            look_again();
        }
        __atomic_store_n(memory.data + mine, 0ll, __ATOMIC_RELEASE);
        return;
    }
#if defined(__x86_64__)
    job[CONTROL] = __builtin_ia32_stmxcsr();
#endif
    const unsigned long long before = __atomic_load_n(ticket, __ATOMIC_RELAXED), pieces = word(PIECES);
    const unsigned long long number = ((before >> 32) + 1ull) << 32;  // another than that of the kernel before
    __atomic_store_n(done, 0ull, __ATOMIC_RELAXED);
    __atomic_store_n(ticket, number, __ATOMIC_RELEASE);
    while (take_piece()) {}
    while (__atomic_load_n(done, __ATOMIC_ACQUIRE) < pieces) look_again();
    __atomic_store_n(ticket, number | 0xffffffffull, __ATOMIC_RELEASE);
#endif
"""
)
def _take(memory: Longs, patience: int, mine: int): ...


@wp.kernel(enable_backward=False)
def _take_pieces(memory: Longs, patience: int, mine: int):
    _take(memory, patience, mine)
