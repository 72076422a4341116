"""The viewer of a run: until its first picture, its processor time at rest, its memory after many visitors."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.viewer.client import Client

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
SOMEWHERE = ((0.0, -3.0, 1.0), (0.69, -0.72, 0.0, 0.0))
WINDOW = (1200, 800)
EXAMPLE = """examples:
  python -m benchmarks.viewer runs/demo
  python -m benchmarks.viewer runs/now --seconds 60      beside a training that goes on"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rest; default: 30")
    parser.add_argument("--visitors", type=int, default=500, help="default: 500")
    parser.add_argument("--port", type=int, default=7321, help="a free one; default: 7321")
    args = parser.parse_args()
    viewer = subprocess.Popen([sys.executable, "view.py", str(args.run), "--port", str(args.port)], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert viewer.stdout is not None
        print(f"listens on             {viewer.stdout.readline().strip()}")
        measure(args, viewer.pid)
    finally:
        viewer.terminate()
        viewer.wait()
    return 0


def measure(args: argparse.Namespace, process: int) -> None:
    """Print the numbers of a viewer that listens."""
    with Client(args.port) as client:
        first, sharp = until_pictures(client)
        print(f"first picture after    {first:.2f} s\nwhole picture after    {sharp:.2f} s")
        client.rest()
        before, steps = cpu_seconds(process), steps_of(args.run)
        time.sleep(args.seconds)
        share = (cpu_seconds(process) - before) / args.seconds
        print(f"at rest                {100 * share:.2f} % of a core, {client.pictures} pictures so far")
        print(f"steps of the training  {(steps_of(args.run) - steps) / args.seconds:.2f} per s")
    for _ in range(2):  # what grows once only is no leak
        memory = resident_mb(process)
        seconds = taken(lambda: visit(args.port, args.visitors))
        grown = resident_mb(process) - memory
        print(f"{args.visitors} visitors           {seconds:.0f} s, {grown:+.1f} MiB to {memory + grown:.0f}")


def until_pictures(client: Client) -> tuple[float, float]:
    """Seconds from the message of a camera to the first picture and to one of all pixels."""
    begun = time.monotonic()
    client.look(*SOMEWHERE, size=WINDOW)
    client.picture(60)
    first = time.monotonic() - begun
    client.picture(120, least_width=768)
    return first, time.monotonic() - begun


def visit(port: int, times: int) -> None:
    """Come, look, and go before the picture is whole."""
    for _ in range(times):
        with Client(port) as client:
            client.look(*SOMEWHERE, size=(64, 64))
            client.messages(20)


def taken(work: Callable[[], None]) -> float:
    """Wall seconds."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def steps_of(run: Path) -> int:
    """The last step that a training has logged."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return int(lines[-1].split()[1].rstrip(",")) if lines else 0


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far, all threads."""
    words = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def resident_mb(process: int) -> float:
    """Resident memory of a process, MiB."""
    lines = Path(f"/proc/{process}/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
