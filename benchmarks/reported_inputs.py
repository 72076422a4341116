"""Check inputs as users reported them: does each end as it must, with a use of all of it or a line that helps?"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError, printable, run_script

EXAMPLE = """example:
  python -m benchmarks.reported_inputs ../shared/cases

Runs `train.py configs/neus_hash.yaml data.path=CASE --check` on each folder, and prints a line of a Markdown table per
folder: its exit code, its last line, and whether both are as they must be. Ends with 1 where one is not."""
ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100  # characters of a last line that are shown


class Must(NamedTuple):
    """How a case must end: its exit code, and what must be said somewhere, as a regular expression."""

    code: int
    said: str


MUST: dict[str, Must] = {
    "02a": Must(0, r"another suffix than is listed(?s:.*): 24 views"),
    "02c": Must(0, r": 24 views"),
    "03": Must(0, r": 24 views, 4 of them for tests"),
    "03c": Must(0, r"2 names of its splits have no frame"),
    "05": Must(0, r"taking those of images_4(?s:.*)their cameras follow(?s:.*): 24 views"),
    "06": Must(0, r"alpha is opaque everywhere: taken as no mask"),
    "07a": Must(2, r"ftheta_p1 - a lens that is not read here"),
    "07d": Must(2, r"k5, k6 - a lens that is not read here"),
    "10": Must(0, r": 24 views"),
    "11": Must(2, r"depth/000\.png - got 32 x 24 pixels - expected 96 x 96"),
    "12": Must(0, r"warning: it has poses for 2 of the 24 pictures"),
    "13": Must(0, r"without sparse points(?s:.*): 24 views"),
    "14b": Must(2, r"each image has two lines"),
    "15": Must(0, r"mask is not read: masks are looked for in masks/"),
    "16a": Must(0, r": 24 views"),
    "17a": Must(0, r": 24 views"),
    "17c": Must(0, r"paired in order(?s:.*): 24 views"),
    "18b": Must(0, r": 24 views"),
    "18d": Must(0, r": 24 views"),
    "18f": Must(0, r"2 chunks with 0, 24 aligned cameras - taking the largest(?s:.*): 24 views"),
    "19": Must(0, r"3 reconstructions \(photographs: 10, 8, 6\)(?s:.*): 10 views"),
    "20a": Must(0, r": 24 views"),
    "21a": Must(2, r"HEIC photographs, which are not read: convert them"),
    "21c": Must(2, r"a video, video\.mp4: take frames out of it"),
    "25": Must(2, r"still packed, as seq-01\.zip: unpack them"),
    "29b": Must(2, r"intrinsic is missing; there is intrinsics"),
    "29c": Must(2, r"depth/\d+\.png - no such file"),
    "32": Must(0, r": 24 photographs, whose poses will be found first"),
}


class Ended(NamedTuple):
    """How a case ended: exit code, and all that was said, with the result at the end."""

    code: int
    said: str

    def is_as(self, must: Must) -> bool:
        """Whether it is as it must be; never with a traceback."""
        return self.code == must.code and bool(re.search(must.said, self.said)) and "Traceback" not in self.said

    @property
    def last(self) -> str:
        """The last line, shortened from its middle."""
        line = (self.said.strip().splitlines() or [""])[-1]
        half = WIDTH // 2
        return line if len(line) <= WIDTH else f"{line[:half]} ... {line[-half:]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of the cases, a folder each")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these alone")
    args = parser.parse_args()
    wanted = {name: must for name, must in MUST.items() if args.only is None or name in args.only}
    print("| Case | Exit code | Last line | As it must |\n|---|---|---|---|", flush=True)
    bad = []
    for name, ended in results(Path(args.folder), wanted):
        right = ended.is_as(wanted[name])
        bad += [] if right else [name]
        line = printable(ended.last).replace("|", r"\|")
        print(f"| {name} | {ended.code} | {line} | {'yes' if right else 'no'} |", flush=True)
    print(f"{len(wanted) - len(bad)} of {len(wanted)} end as they must{': not ' if bad else ''}{', '.join(bad)}")
    return 1 if bad else 0


def results(folder: Path, wanted: Mapping[str, Must]) -> Iterator[tuple[str, Ended]]:
    """Name and end of each case. Raises InputError where one is missing, or nothing is known of one that is there."""
    there = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    lacking = [name for name in wanted if name not in there]
    if lacking or not wanted:
        raise InputError(f"{folder} - no case {', '.join(lacking) or 'to run'} - got {', '.join(there) or 'none'}")
    unknown = [name for name in there if name not in MUST]
    if unknown:
        raise InputError(f"{folder} - got the case {unknown[0]} - benchmarks/reported_inputs.py does not say its end")
    for name in wanted:
        yield name, run(folder / name)


def run(case: Path) -> Ended:
    """Run the check of a case; its data are in data/ where the folder has more than them."""
    data = case / "data" if (case / "data").is_dir() else case
    command = [sys.executable, "train.py", "configs/neus_hash.yaml", f"data.path={data.resolve()}", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    # An error is the last line of its stream, a result that of the other one.
    return Ended(done.returncode, done.stderr + done.stdout)


if __name__ == "__main__":
    run_script(main)
