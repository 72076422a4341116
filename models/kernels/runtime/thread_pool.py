"""A thread pool for kernels on a CPU: its threads take the next free piece of a kernel, without Python between pieces.

A training step launches a kernel every millisecond, and waking a thread takes a tenth of one. So the workers busy-wait
for the next kernel in native code, for `PATIENCE` seconds before they sleep; the caller starts without those that wake.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
import warp as wp

from models.kernels.runtime.native import Longs

PATIENCE = 1e-3  # seconds for which a worker busy-waits before it sleeps
TRIAL, TRIALS = 4096, 5  # polls of the busy-wait that are timed, and how often: other work may interrupt
MOST_BYTES = 4096  # of a kernel's arguments; the same constant is in the native code
JOB, AWAKE, LINE = 16, 32, 8  # offsets into the shared memory and words per cache line, see `_take`


class Native(Protocol):
    """A kernel compiled for this CPU, as the pool wants it: `models.kernels.runtime.launch.Compiled`."""

    address: int

    def arguments(self, inputs: Sequence[Any]) -> ctypes.Structure: ...
    def bounds(self, count: int) -> ctypes.Structure: ...
    def call(self, count: int, inputs: Sequence[Any]) -> Callable[[], None]: ...


class ThreadPool:
    """A pool of `threads` >= 2 threads: the one that makes it, which alone calls `run`, and its workers."""

    def __init__(self, threads: int, compiled: Callable[[Any, Sequence[Any]], Native]) -> None:
        """compiled: makes a native function of a kernel and inputs that fit it."""
        self.threads = threads
        self.memory = torch.zeros(AWAKE + LINE * threads, dtype=torch.int64)
        self.memory[0] = -1  # no piece to take
        self.job = (ctypes.c_longlong * 8).from_address(self.memory.data_ptr() + 8 * JOB)
        self.awake = (ctypes.c_longlong * (LINE * threads)).from_address(self.memory.data_ptr() + 8 * AWAKE)
        words = wp.from_torch(self.memory, return_ctype=True)
        self.compiled = compiled(_take_pieces, [words, 0, 0])
        self.lead, trial = (self.compiled.call(1, [words, looks, AWAKE]) for looks in (0, TRIAL))
        looks = max(int(TRIAL * PATIENCE / min(_seconds(trial) for _ in range(TRIALS))), 1)
        places = range(AWAKE, AWAKE + LINE * (threads - 1), LINE)
        self.workers = [self.compiled.call(1, [words, looks, place]) for place in places]
        self.pool = ThreadPoolExecutor(threads - 1, "kernel")

    def run(self, kernel: Native, count: int, size: int, inputs: Sequence[Any]) -> None:
        """Run a kernel for `count` items, in pieces of `size` and a rest. The first input, a piece's offset, is 0."""
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
        """Run worker i until it finds no piece for `PATIENCE` seconds; keeps the memory that it polls alive."""
        self.workers[i]()


def _seconds(work: Callable[[], None]) -> float:
    """Duration of work, at least a microsecond."""
    begun = time.perf_counter()
    work()
    return max(time.perf_counter() - begun, 1e-6)


# Words of the shared memory: 0, the ticket, in its upper half the number of the launch and in its lower the next piece
# to take, beyond the last where there is none; 8, the number of pieces done; from 16 on the job, with the caller's
# floating-point control word (whether denormals are zeros); from 32 on, a cache line apart, an atomic flag per worker:
# whether it is awake or about to be. A worker clears its flag itself, in native code: Python could do so only once the
# caller releases the interpreter lock.
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
            // The job changes only while there is no piece to take: what was read is valid if this succeeds.
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
    const unsigned long long number = ((before >> 32) + 1ull) << 32;  // differs from that of the launch before
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
