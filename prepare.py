"""Find the poses of raw photographs; or look at a data set, and say what would spoil a run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from engine import early
from utils.command_line import Parser, output_file
from utils.errors import InputError, run_script

EXAMPLE = """examples:
  python prepare.py PHOTOS OUT
  python prepare.py PHOTOS OUT data.matching=sequential data.lens=OPENCV
  python prepare.py --check DATA
  python prepare.py --check DATA data.type=dtu data.masks=off --out report.html

OUT is a data set in COLMAP's layout; at the end stands the command that trains on it
exit codes: 0 done, whatever was found; 2 data that cannot be read; 4 storage"""
ANY_CONFIG = Path(__file__).parent / "configs" / "neus_hash.yaml"  # of which the part about data is used


def main() -> int:
    parser = Parser(__doc__, EXAMPLE, keys=early.keys)
    parser.add_argument(
        "folders", nargs="*", default=[], metavar="PHOTOS OUT", help="raw photographs, and a new folder for the data"
    )
    parser.add_argument("--check", metavar="DATA", help="folder or file of a data set to look at")
    page = output_file(".html")
    parser.add_argument("--out", type=page, metavar="FILE.html", help="write the report as a page with pictures")
    args = parser.parse()
    overrides = [text for text in args.folders if re.match(r"[a-z_.]+=", text)]
    folders = [text for text in args.folders if text not in overrides]
    if args.check is not None and not folders:
        return check(args.check, overrides, args.out)
    if args.check is not None or len(folders) != 2:
        raise InputError(f"got {len(folders)} folders - expected PHOTOS OUT, or --check DATA; --help shows examples")
    return find_poses(folders[0], folders[1], overrides)


def find_poses(photos: str, out: str, overrides: Sequence[str]) -> int:
    """Photographs to a data set in the folder `out`; returns the exit code."""
    named = ["data.type=photos", f"data.path={json.dumps(photos)}", f"data.prepared={json.dumps(out)}", *overrides]
    early.check_data(early.check_config(ANY_CONFIG, named))

    from dataio.formats.photos import PhotosData, prepare
    from engine.experiment import read_config
    from engine.suits import command, suited

    config = read_config(ANY_CONFIG, named).data
    assert isinstance(config, PhotosData)
    for line in prepare(config, Path(out)).lines():
        print(line)
    found = config.found(Path(out)).inspect()
    assert found.outline is not None
    print(command(suited(found.outline(), found.quantities), out))
    return 0


def check(data: str, overrides: Sequence[str], out: Path | None) -> int:
    """Print the findings, and write the page if asked for; returns the exit code."""
    named = [f"data.path={json.dumps(data)}", *overrides]
    early.check_data(early.check_config(ANY_CONFIG, named))

    from dataio.checks.doctor import examine
    from dataio.checks.doctor_page import write_page
    from engine.experiment import read_config
    from engine.suits import command, suited

    config = read_config(ANY_CONFIG, named).data
    report = examine(config)
    for line in report.lines():
        print(line)
    scene = report.patient.scene
    print(command(suited(scene, scene.quantities), data, overrides))
    if out is not None:
        write_page(report, out)
        print(out)
    return 0


if __name__ == "__main__":
    run_script(main, memory="a smaller data.memory, data.size or data.ram may help")
