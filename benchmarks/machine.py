"""What every benchmark prints: the machine, versions, rates measured in the same run, times, and a dated file.

On a CPU all rates are per CPU-second (of all threads of the process), on CUDA per second of wall time, synchronized.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.machine import hardware, versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
GEMM = (4096, 1024, 1024)
COPY_BYTES = 1 << 28
LEAST_SECONDS = 0.02  # a shorter piece of work is repeated within one timing


def timed(work: Callable[[], object], device: Any) -> tuple[float, float]:
    """Wall and CPU seconds (of all threads of this process) that `work` takes, the GPU's work included."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def cost(work: Callable[[], object], device: Any) -> float:
    """CPU seconds that `work` takes; on CUDA wall seconds."""
    wall, cpu = timed(work, device)
    return max(wall if device.type == "cuda" else cpu, 1e-9)


def best(work: Callable[[], object], device: Any, repeats: int) -> float:
    """The least cost of some repeats, after one that does not count; short work is repeated within a timing."""
    work()
    first = cost(work, device)
    inner = max(1, round(LEAST_SECONDS / first))
    if inner == 1:
        return min([first, *(cost(work, device) for _ in range(repeats - 1))])
    return min(cost(lambda: repeated(work, inner), device) / inner for _ in range(repeats))


def repeated(work: Callable[[], object], times: int) -> None:
    """Do it so many times."""
    for _ in range(times):
        work()


def synchronize(device: Any) -> None:
    """Wait for a GPU; nothing on a CPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: Any) -> None:
    """Begin anew with `peak_mb`; where the system cannot, its peak stays that of the whole process."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def peak_mb(device: Any) -> float:
    """Peak resident memory of this process, on CUDA of the tensors there, since `forget_peak`; MiB."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def roofs(device: Any, gemm: tuple[int, int, int] = GEMM) -> dict[str, float]:
    """What the machine can do: the ceilings of the roofline. gemm: rows, inner and columns of the matrix product."""
    return {"gemm_gflop_per_s": gemm_rate(device, gemm), "copy_gb_per_s": copy_rate(device)}


def gemm_rate(device: Any, shape: tuple[int, int, int], repeats: int = 3) -> float:
    """GFLOP of an fp32 matrix product per CPU-second (on CUDA: per second), the best of some repeats."""
    import torch

    rows, inner, columns = shape
    a, b = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    out = torch.empty(rows, columns, device=device)
    seconds = best(lambda: torch.mm(a, b, out=out), device, repeats)
    return 2e-9 * rows * inner * columns / seconds


def copy_rate(device: Any, repeats: int = 3) -> float:
    """GB read and written per CPU-second (on CUDA: per second) in copying a quarter of a GiB."""
    import torch

    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2e-9 * COPY_BYTES / best(lambda: target.copy_(source), device, repeats)


def describe(device: Any) -> dict[str, Any]:
    """The date, the machine, the versions and the number of torch's threads."""
    import torch

    date = {"date": datetime.now(UTC).strftime("%Y-%m-%d")}
    return {**date, **hardware(device), **versions(), "threads": torch.get_num_threads()}


def print_table(found: Mapping[str, Any]) -> None:
    """One line per number; what is itself a list of rows follows as a table."""
    rows = {
        key: value for key, value in found.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    for key, value in found.items():
        if key not in rows:
            print(f"{key:22s} {shown(value)}")
    for name, table in rows.items():
        print(f"\n{name}")
        print_rows(table)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Numbers under the names of their columns; the first column to the left."""
    cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        first, *rest = (text.rjust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join([line[0].ljust(len(first)), *rest]))


def shown(value: Any) -> str:
    """A number in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def dated_file(found: Mapping[str, Any], name: str) -> Path:
    """Where a result is kept: one file per day, name and device; a later one replaces it."""
    return RESULTS / f"{found['date']}-{name}-{found['device']}.json"


def write(found: Mapping[str, Any], path: Path) -> Path:
    """Write the numbers as JSON; returns the path."""
    from utils.files import write_json

    write_json(path, dict(found))
    return path


def parser_of(about: str | None, examples: str) -> argparse.ArgumentParser:
    """The command line that all benchmarks share: overrides, device, threads and the file."""
    parser = argparse.ArgumentParser(
        description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key.sub=value", help="changes to the config")
    add("--device", default="cpu", help="cpu or cuda; default: cpu")
    add("--out", nargs="?", const="", metavar="FILE.json", help="default: a dated file in benchmarks/results/")
    add("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def finish(found: Mapping[str, Any], out: str | None, name: str) -> int:
    """Print the numbers, and write them if that is wanted (`out` "": into the dated file); the exit code."""
    print_table(found)
    if out is not None:
        print(write(found, Path(out) if out else dated_file(found, name)))
    return 0


def count(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 on expected, got {text}")
    return value
