"""Find the poses of raw photographs; or look at a data set, and say what would spoil a run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError, run_script

EXAMPLE = """examples:
  python prepare.py PHOTOS OUT
  python prepare.py PHOTOS OUT data.matching=sequential data.lens=OPENCV
  python prepare.py --check DATA
  python prepare.py --check DATA data.type=dtu data.masks=off --out report.html

OUT is a data set in COLMAP's layout: python train.py CONFIG data.path=OUT
exit codes: 0 done, whatever was found; 2 data that cannot be read; 4 storage"""
ANY_CONFIG = Path(__file__).parent / "configs" / "neus_hash.yaml"  # of which the part about data is used


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", metavar="PHOTOS OUT", help="raw photographs, and a new folder for the data"
    )
    parser.add_argument("--check", metavar="DATA", help="folder or file of a data set to look at")
    parser.add_argument("--out", metavar="FILE.html", help="write the report as a page with pictures")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_intermixed_args()
    folders = [text for text in args.folders if not text.startswith("data.")]
    overrides = [text for text in args.folders if text.startswith("data.")]
    if args.check is not None and not folders:
        return check(args.check, overrides, Path(args.out) if args.out else None)
    if args.check is not None or len(folders) != 2:
        raise InputError(f"got {len(folders)} folders - expected PHOTOS OUT, or --check DATA; --help shows examples")
    return find_poses(folders[0], folders[1], overrides)


def find_poses(photos: str, out: str, overrides: Sequence[str]) -> int:
    """Photographs to a data set in the folder `out`; returns the exit code."""
    from dataio.formats.photos import PhotosData, prepare
    from engine.experiment import read_config

    named = ["data.type=photos", f"data.path={json.dumps(photos)}", f"data.prepared={json.dumps(out)}"]
    config = read_config(ANY_CONFIG, [*named, *overrides]).data
    assert isinstance(config, PhotosData)
    for line in prepare(config, Path(out)).lines():
        print(line)
    print(f"{out}: python train.py CONFIG data.path={out}")
    return 0


def check(data: str, overrides: Sequence[str], out: Path | None) -> int:
    """Print the findings, and write the page if asked for; returns the exit code."""
    from dataio.checks.doctor import examine
    from dataio.checks.doctor_page import write_page
    from engine.experiment import read_config

    config = read_config(ANY_CONFIG, [f"data.path={json.dumps(data)}", *overrides]).data
    report = examine(config)
    for line in report.lines():
        print(line)
    if out is not None:
        write_page(report, out)
        print(out)
    return 0


if __name__ == "__main__":
    run_script(main, memory="a smaller data.memory, data.size or data.ram may help")
