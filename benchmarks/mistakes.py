"""Mistakes on the command line of every script: how long the answer takes, and what it is."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
CONFIG = "configs/neus_hash.yaml"
MEDIUM = "{field: outside, opacity: density, bounds: outside}"
# What is typed, and a word that the answer must have. In it DATA, RUN, FILE and NEW are paths; see `made`.
MISTAKES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("train.py",), "required: config"),
    (("train.py", "neus_hash", "data.path=DATA"), "configs/neus_hash.yaml"),
    (("train.py", CONFIG, "data.path=DATA", "--train.minutes=3"), "write train.minutes=3"),
    (("train.py", CONFIG, "--data", "DATA"), "write data.path=DATA"),
    (("train.py", CONFIG, "DATA"), "as data.path=DATA"),
    (("train.py", "data.path=DATA"), "stands where the config is expected"),
    (("train.py", CONFIG, "data.path=DATA", "train.raiz=3"), "train.raiz: unknown key"),
    (("train.py", CONFIG, "data.path=DATA", "device=gpu"), "auto, cpu, cuda, cuda:1"),
    (("train.py", CONFIG, "data.path=DATA", "model.foreground.field.encoding=hsah_grid"), "'hash_grid'"),
    (("train.py", CONFIG, "data.path=DATA", "losses.msk=null"), "did you mean 'mask'"),
    (("train.py", CONFIG, "data.path=DATA", f"model.background={MEDIUM}"), "base: neus_hash_open.yaml has it"),
    (("train.py", CONFIG, "data.path=DATA", "train={steps: 3"), "the { is not closed"),
    (("train.py", "FILE.yaml", "data.path=DATA"), "a tab - indent with blanks"),
    (("train.py", CONFIG, "data.path=DATA", "data.every=3"), "a key of type: scannet or seven_scenes"),
    (("train.py", CONFIG, "data.path=DATO", "--check"), "data.path: DATO - no such file or folder"),
    (("train.py", CONFIG, "data.path=DATA", "output=FILE"), "output: FILE: is no folder"),
    (("train.py", CONFIG, "data.path=DATA", "output=FILE/run", "--check"), "FILE is no folder"),
    (("render.py", "NEW"), "NEW: no such folder - expected a run folder"),
    (("render.py", "RUN", "--path", "orbti"), "did you mean 'orbit'"),
    (("render.py", "RUN", "--out", "NEW/x.avi"), "a file that ends in .mp4, .gif, .webp, .png, or a folder"),
    (("render.py", "RUN", "--out", "FILE/x.mp4"), "FILE: is no folder"),
    (("render.py", "RUN", "--renderer", "latice"), "did you mean 'lattice'"),
    (("render.py", "RUN", "--device", "gpu"), "auto, cpu, cuda, cuda:1"),
    (("extract_mesh.py", "RUN", "--out", "NEW/mesh.off"), ".ply or .obj or .glb or .stl"),
    (("extract_mesh.py", "RUN", "--resolution", "8"), "a whole number from 16 to 4096"),
    (("evaluate.py", "RUN", "--reference", "NEW"), "--reference: NEW: no such file"),
    (("evaluate.py", "RUN", "data.msks=keep"), "did you mean 'masks'"),
    (("evaluate.py", "RUN", "--data", "NEW"), "--data: NEW - no such file or folder"),
    (("report.py", "NEW"), "NEW: no such folder - expected a run folder"),
    (("report.py", "RUN", "--out", "NEW/x.pdf"), "a file that ends in .html"),
    (("view.py", "NEW.ply"), "no such file - expected a mesh or a run folder"),
    (("view.py", "RUN", "--renderer", "latice"), "did you mean 'lattice'"),
    (("evaluate.py", "RUN", "--protocol", "dtuu"), "did you mean 'dtu'"),
    (("evaluate.py",), "expected a run, --mesh and --reference, or --renderings and --truth"),
    (("compare.py", "NEW"), "NEW: no such folder - expected a run folder"),
    (("sweep.py", "NEW.yaml"), "no such file; did you mean 'file.yaml'? - expected a sweep file"),
    (("bake.py", "RUN", "--out", "FILE"), "--out: FILE: is no folder"),
    (("publish.py", "RUN", "NEW"), "required: --data-license"),
    (("publish.py", "RUN", "FILE", "--data-license", "own"), "FILE: is no folder"),
    (("prepare.py", "DATA"), "expected PHOTOS OUT"),
    (("prepare.py", "DATA", "FILE"), "FILE: is no folder"),
    (("prepare.py", "--check", "DATA", "--out", "NEW.pdf"), "a file that ends in .html"),
)


@dataclass(frozen=True)
class Answer:
    """What a script did: its code, seconds of wall time, the lines it wrote, and whether it had imported torch."""

    command: str
    code: int
    seconds: float
    lines: list[str]
    torch: bool
    expected: str

    @property
    def good(self) -> bool:
        """One line that says what to write, code 2, and torch was not waited for."""
        line = self.lines[0] if len(self.lines) == 1 else ""
        return self.code == 2 and line.startswith("error: ") and self.expected in line and not self.torch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with TemporaryDirectory() as folder:
        found = []
        for answer in answers(Path(folder), root=ROOT):
            found.append(answer)
            print(f"{answer.seconds:5.2f} s  code {answer.code}  {answer.command}", *answer.lines, sep="\n         ")
    good, slowest = sum(answer.good for answer in found), max(answer.seconds for answer in found)
    traces = sum("Traceback" in line for answer in found for line in answer.lines)
    print(f"{len(found)} mistakes: {good} good answers, the slowest after {slowest:.2f} s, {traces} tracebacks")
    return 0 if good == len(found) else 1


def answers(folder: Path, *, root: Path) -> Iterator[Answer]:
    """Make every mistake, with files in an empty folder, by the scripts in `root`."""
    places = made(folder)
    for words, expected in MISTAKES:
        yield answer_to([_placed(word, places) for word in words], _placed(expected, places), root)


def made(folder: Path) -> dict[str, str]:
    """Paths by what stands for them: DATA, photographs with poses; RUN, a run; FILE, a file; NEW, nothing yet."""
    run = folder / "run"
    (folder / "data").mkdir()
    (folder / "data/transforms.json").write_text("{}", "utf-8")
    (folder / "file").touch()
    (folder / "file.yaml").write_text("base: neus_hash.yaml\ntrain:\n\tsteps: 3\n", "utf-8")
    (run / "checkpoints/step_00000001").mkdir(parents=True)
    (run / "checkpoints/step_00000001/manifest.json").write_text("{}", "utf-8")
    (run / "config.yaml").write_text(f"base: neus_hash.yaml\ndata: {{path: {folder / 'data'}}}\n", "utf-8")
    names = {"DATA": "data", "DATO": "dato", "RUN": "run", "FILE": "file", "NEW": "new"}
    return {name: str(folder / path) for name, path in names.items()}


def answer_to(words: Sequence[str], expected: str, root: Path) -> Answer:
    """What a script answers. Its imports are listed on stderr by the interpreter, between its own lines."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    imports = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    own = [line for line in lines if not line.startswith("import time:")]
    return Answer(" ".join(words), done.returncode, seconds, own, "torch" in imports, expected)


def _placed(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path) if name in word.replace("FILE.json", "") else word
    return word


if __name__ == "__main__":
    sys.exit(main())
