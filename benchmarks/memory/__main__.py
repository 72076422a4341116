"""The estimate of a training's memory beside what it took: `python -m benchmarks.memory CONFIG key=value ...`.

The run goes to its end, with its last checkpoint. Memory that is given up is handed back to the system at once, which
an allocator does not do by itself, so that what is resident is what is in use. Idle is the process as it is ready for
the first step, less its pictures, parameters and buffers. Linux, CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from pathlib import Path

from engine import memory_estimate, resume
from engine.experiment import read_config
from engine.trainer import Trainer
from utils import distributed
from utils.memory import sizes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
SMALL = 1 << 16  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    args = parser.parse_args()
    config = read_config(args.config, args.overrides)
    hand_back_at_once()
    with tempfile.TemporaryDirectory() as folder:
        ranks = distributed.setup("cpu")
        estimate, _ = memory_estimate.check_memory(config, ranks.device)
        run = resume.open_trainer(config, Path(folder) / "run", ranks, allow_config_change=False)
        assert run is not None
        estimate = memory_estimate.before_steps(estimate, run)
        idle = status("VmRSS") - estimate.pictures - estimate.parameters - estimate.buffers
        steps, last = peaks(run)
        most = max(steps, last) - idle
        print(f"{args.config} idle {idle / 1e6:.0f} MB, above it: steps {(steps - idle) / 1e6:.0f} MB, last checkpoint")
        print(f"{(last - idle) / 1e6:.0f} MB; estimate {estimate.most / 1e6:.0f} MB, {estimate.most / most - 1:+.1%}")
        print(estimate.parts())
        run.close()


def hand_back_at_once() -> None:
    """Let the C library give freed memory back to the system."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(MMAP_THRESHOLD, SMALL)
    libc.mallopt(TRIM_THRESHOLD, SMALL)


def peaks(run: Trainer) -> tuple[int, int]:
    """The largest resident memory, bytes, of the steps to the end, and of what is written then."""
    forget_peak()
    while run.progress < 1:
        run.step_once()
    steps = status("VmHWM")
    forget_peak()
    run.finish()
    return steps, status("VmHWM")


def forget_peak() -> None:
    """Have the system count the peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def status(name: str) -> int:
    """Bytes that the system says of this process."""
    return sizes("/proc/self/status")[name]


if __name__ == "__main__":
    main()
