"""Photographs to a COLMAP model: what is matched with what, and the process that does it, watched and limited."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from dataio.files import Float64, shown
from dataio.formats.colmap_model import count_photos, suffix_of
from dataio.georeference import middle_of
from dataio.pictures.exif import Exif
from utils.errors import InputError
from utils.files import link_or_copy, write_json

Matching = Literal["auto", "exhaustive", "sequential", "gps"]
Pairs = set[tuple[int, int]]

WORKER = Path(__file__).with_name("worker.py")
INSTALL = "pip install -r requirements-prepare.txt"
FEW = 60  # photographs: all pairs of so many take two minutes on two cores
NEIGHBORS, NEXT = 20, 10
KNOWN_SHARE = 0.9  # of the photographs must know where they were taken, for neighbors to be found by it
STAGES = {"features": "finding features", "pairs": "matching pairs", "cameras": "placing cameras"}
LENSES = {"SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4, "SIMPLE_PINHOLE": 0, "PINHOLE": 0}  # coefficients


class CameraGroup(NamedTuple):
    """Photographs of one lens, which share a camera."""

    names: list[str]
    parameters: list[float]  # COLMAP's, from the focal length in the EXIF; none where it is not known


class Limits(NamedTuple):
    """What the child process may take."""

    memory: int  # bytes of address space, 0: as much as there is
    minutes: float
    threads: int  # 0: all that this process may use


@dataclass(frozen=True)
class Effort:
    """How the photographs are looked at."""

    matching: Matching
    lens: str  # COLMAP's name
    size: int  # pixels of the longer side in which features are found
    features: int  # per photograph


def need_pycolmap() -> None:
    """Raises InputError where it is not installed."""
    if find_spec("pycolmap") is None:
        raise InputError(f"pycolmap is not installed, which finds the poses of photographs - {INSTALL}")


def choose_pairs(exifs: Sequence[Exif], matching: Matching) -> Pairs:
    """Which photographs are compared, as pairs of numbers i < j; photographs are in the order of their names.

    exhaustive: all. sequential: each with the next ten and, for loops, those 16, 32, 64 ... later. gps: each with
    the twenty nearest and the next two. auto: all for up to 60 photographs, then gps where nine of ten know where
    they were taken, else sequential. Raises InputError for gps without positions.
    """
    count = len(exifs)
    known = [i for i, exif in enumerate(exifs) if exif.position is not None]
    if matching == "auto":
        located = len(known) >= KNOWN_SHARE * count
        matching = "exhaustive" if count <= FEW else "gps" if located else "sequential"
    if matching == "exhaustive":
        return {(i, j) for j in range(count) for i in range(j)}
    if matching == "sequential":
        steps = [*range(1, NEXT + 1), *(2**k for k in range(4, count.bit_length()))]
        return {(i, i + step) for step in steps for i in range(count - step)}
    if len(known) < 2:
        raise InputError("data.matching: gps - the photographs do not say where they were taken - expected another way")
    near = _nearest(_plan([exifs[i] for i in known]))
    pairs = {(min(known[i], known[j]), max(known[i], known[j])) for i, row in enumerate(near) for j in row if i != j}
    # Those without a position are compared with their neighbors in time only.
    return pairs | {(i, i + step) for step in (1, 2) for i in range(count - step)}


def _plan(exifs: Sequence[Exif]) -> Float64:
    """[N, 2] meters east and north of their middle; heights of receivers are too coarse to be of use."""
    places = np.array([(e.position.latitude, e.position.longitude, 0.0) for e in exifs if e.position is not None])
    return middle_of(places).enu(places)[:, :2]


def _nearest(plan: Float64) -> np.ndarray:
    from scipy.spatial import cKDTree

    _, near = cKDTree(plan).query(plan, k=min(NEIGHBORS + 1, len(plan)))
    return np.atleast_2d(near)


def camera_groups(
    names: Sequence[str], exifs: Sequence[Exif], sizes: Sequence[tuple[int, int]], lens: str
) -> list[CameraGroup]:
    """Photographs of one lens: the same maker, model, focal length and size."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, (exif, size) in enumerate(zip(exifs, sizes, strict=True)):
        groups.setdefault((exif.camera, exif.focal_millimeters, exif.focal and round(exif.focal), size), []).append(i)
    return [
        CameraGroup([names[i] for i in members], _parameters(exifs[members[0]].focal, sizes[members[0]], lens))
        for members in groups.values()
    ]


def _parameters(focal: float | None, size: tuple[int, int], lens: str) -> list[float]:
    if focal is None:
        return []
    focals = [focal] if lens.startswith(("SIMPLE", "RADIAL")) else [focal, focal]
    return [*focals, size[0] / 2, size[1] / 2, *[0.0] * LENSES[lens]]


def find_models(
    images: Path, groups: Sequence[CameraGroup], pairs: Pairs, *, work: Path, effort: Effort, limits: Limits
) -> list[Path]:
    """Run pycolmap on pictures; returns the folders of the models, those with the most photographs first.

    images: folder of the pictures. pairs: by their numbers in the order of their names. work: a folder for what is
    made, the models too. Raises InputError where pycolmap fails, or takes more memory or time than it may.
    """
    models = work / "models"
    models.mkdir(parents=True, exist_ok=True)
    names = sorted(name for group in groups for name in group.names)
    numbered = _numbered(images, names, work / "pictures")
    job = {
        "images": str((work / "pictures").resolve()), "database": str((work / "database.db").resolve()),
        "models": str(models.resolve()),
        "groups": [[[numbered[name] for name in group.names], group.parameters] for group in groups],
        "pairs": [[numbered[names[i]], numbered[names[j]]] for i, j in sorted(pairs)],
        "names": {number: name for name, number in numbered.items()},
        "lens": effort.lens, "size": effort.size, "features": effort.features, "memory": limits.memory,
        "threads": limits.threads or len(os.sched_getaffinity(0)),
    }  # fmt: skip
    write_json(work / "job.json", job)
    _watch([sys.executable, "-P", str(WORKER), str(work / "job.json")], work / "log.txt", limits)
    found = [folder for folder in models.iterdir() if suffix_of(folder)]
    return sorted(found, key=lambda folder: (-count_photos(folder, root=models), folder.name))


def _numbered(images: Path, names: Sequence[str], folder: Path) -> dict[str, str]:
    """The pictures as 000000.jpg and so on in a folder of their own; returns those names by the pictures' own.

    COLMAP's lists hold no blanks and no line breaks, and a name may have all of that.
    """
    folder.mkdir(exist_ok=True)
    numbered = {name: f"{number:06d}{Path(name).suffix}" for number, name in enumerate(names)}
    for name, number in numbered.items():
        link_or_copy(images / name, folder / number)
    return numbered


def _watch(command: list[str], log: Path, limits: Limits) -> None:
    """Run the child, show its progress, end it when its time is up. Raises InputError when it fails."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as child,
    ):
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(limits.minutes * 60, end)
        timer.daemon = True
        timer.start()
        try:
            assert child.stdout is not None
            _show(child.stdout)
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
    if late.is_set():
        raise InputError(
            f"finding the poses took more than {limits.minutes:g} minutes - fewer photographs,"
            " data.matching=sequential, a smaller data.size, or more data.minutes"
        )
    if code:
        raise InputError(f"finding the poses failed (code {code}): {_reason(log, code)} - all of it is in {shown(log)}")


def _show(lines: Iterable[bytes]) -> None:
    bar, stage = None, ""
    for line in lines:
        words = line.split()
        name = words[0].decode(errors="replace") if words else ""
        if name not in STAGES or len(words) != 3 or not (words[1] + words[2]).isdigit():
            continue
        if name != stage:
            if bar is not None:
                bar.close()
            stage = name
            bar = tqdm(desc=STAGES[stage], total=int(words[2]), disable=None, leave=False)
        if bar is not None:
            bar.update(int(words[1]) - bar.n)
    if bar is not None:
        bar.close()


def _reason(log: Path, code: int) -> str:
    text = log.read_bytes()[-4000:].decode(errors="replace")
    if code in (-6, -9) or "bad_alloc" in text or "MemoryError" in text:
        return "perhaps out of memory; data.memory=16G allows more, a smaller data.size needs less"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
