"""Time the loading of large photographs, its memory, and the stream of rays from memory and from disk."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import run_script

EXAMPLE = """examples:
  python -m benchmarks.loader
  python -m benchmarks.loader --images 8 --ram 100M
  python -m benchmarks.loader --folder DATA          keep the pictures there, use them again"""
SIZE = (4032, 3024)
SEED = 0


@dataclass(frozen=True)
class Found:
    """What one process found: seconds, bytes, rays per second."""

    name: str
    load_s: float
    pixel_bytes: int
    idle_rss: int  # before loading, everything imported
    peak_rss: int
    anonymous_rss: int  # what cannot be given back to the disk
    rays_per_s: float

    @property
    def peak_ratio(self) -> float:
        """Peak memory, in bytes of all pixels."""
        return self.peak_rss / self.pixel_bytes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=80, metavar="N", help="default: 80")
    add("--size", type=int, nargs=2, default=SIZE, metavar=("W", "H"), help="default: 4032 3024")
    add("--rays", type=int, default=8192, metavar="N", help="rays per batch; default: 8192")
    add("--batches", type=int, default=400, metavar="N", help="batches that are timed; default: 400")
    add("--ram", default="1G", metavar="SIZE", help="data.ram of the runs from disk; default: 1G")
    add("--folder", metavar="PATH", help="default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        write_set(folder, args.images, tuple(args.size))
        for found in measure_all(folder, args.ram, args.rays, args.batches):
            print(line(found), flush=True)
    return 0


def write_set(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEG photographs of texture on a circle of cameras, with transforms.json; those that exist stay."""
    import cv2

    (folder / "images").mkdir(parents=True, exist_ok=True)
    width, height = size
    random = np.random.default_rng(SEED)
    coarse: Any = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    texture = smooth // 2 + random.integers(0, 128, smooth.shape, dtype=np.uint8) // 2
    frames = []
    for view, angle in enumerate(np.linspace(0, 2 * np.pi, count, endpoint=False)):
        path = folder / f"images/{view:04d}.jpg"
        if not path.exists():
            cv2.imwrite(str(path), np.roll(texture, 37 * view, axis=1), [cv2.IMWRITE_JPEG_QUALITY, 92])
        back = np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.array([-np.sin(angle), np.cos(angle), 0.0])
        pose = np.eye(4)
        pose[:3] = np.stack([right, [0, 0, 1], back, 3 * back], axis=1)
        frames.append({"file_path": f"images/{view:04d}.jpg", "transform_matrix": pose.tolist()})
    content = {"fl_x": float(width), "w": width, "h": height, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content), encoding="utf-8")


def measure_all(folder: Path, ram: str, rays: int, batches: int) -> list[Found]:
    """In memory; from disk, the first time and again; from disk after it was pushed out of memory."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        found = [in_process("in memory", folder, "1T", cache, rays, batches)]
        found.append(in_process(f"data.ram={ram}, first", folder, ram, cache, rays, batches))
        found.append(in_process(f"data.ram={ram}, again", folder, ram, cache, rays, batches))
        for path in Path(cache).glob("*.pixels"):
            forget(path)
        found.append(in_process(f"data.ram={ram}, cold", folder, ram, cache, rays, max(1, batches // 20)))
    return found


def in_process(name: str, folder: Path, ram: str, cache: str, rays: int, batches: int) -> Found:
    """`measure` in a process of its own, whose peak of memory is nobody else's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, name, str(folder), ram, cache, rays=rays, batches=batches).result()


def measure(name: str, folder: str, ram: str, cache: str, *, rays: int, batches: int) -> Found:
    """Load the set and draw batches from it."""
    from dataio.batches import PixelSampler
    from dataio.formats.transforms import TransformsData

    idle = memory("VmRSS")
    start = time.perf_counter()
    scene = TransformsData(path=folder, ram=ram, cache=cache).load()
    loaded = time.perf_counter() - start
    with PixelSampler(scene, rays=rays, seed=SEED) as sampler:
        next(sampler)
        start = time.perf_counter()
        for _ in range(batches):
            next(sampler)
        seconds = time.perf_counter() - start
    return Found(
        name=name,
        load_s=loaded,
        pixel_bytes=3 * int(scene.cameras.size.prod(dim=1).sum()),
        idle_rss=idle,
        # The system counts the peak from time to time, not at every page.
        peak_rss=max(memory("VmHWM"), memory("VmRSS"), idle),
        anonymous_rss=memory("RssAnon"),
        rays_per_s=rays * batches / seconds,
    )


def memory(key: str) -> int:
    """A number of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(1024 * int(text.split()[1]) for text in lines if text.startswith(key))


def forget(path: Path) -> None:
    """Ask the system to keep nothing of a file in memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def line(found: Found) -> str:
    """One line of the table."""
    return (
        f"{found.name:22s} load {found.load_s:6.1f} s  pixels {found.pixel_bytes / 2**20:6.0f} MiB"
        f"  peak {found.peak_rss / 2**20:6.0f} MiB = {found.peak_ratio:.2f} x"
        f"  (idle {found.idle_rss / 2**20:.0f}, anonymous {found.anonymous_rss / 2**20:.0f})"
        f"  {found.rays_per_s / 1e6:.3f} M rays/s"
    )


if __name__ == "__main__":
    run_script(main)
