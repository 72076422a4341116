"""Look at a data set before training on it, and say what would spoil the run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from utils.errors import run_script

EXAMPLE = """examples:
  python prepare.py --check DATA
  python prepare.py --check DATA data.type=dtu data.masks=off --out report.html

exit codes: 0 done, whatever was found; 2 data that cannot be read; 4 storage"""
ANY_CONFIG = Path(__file__).parent / "configs" / "neus_hash.yaml"  # of which the part about data is used


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="data.key=value", help="how the data are looked at")
    parser.add_argument("--check", required=True, metavar="DATA", help="folder or file of the data")
    parser.add_argument("--out", metavar="FILE.html", help="write the report as a page with pictures")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    args = parser.parse_args()
    return check(args.check, args.overrides, Path(args.out) if args.out else None)


def check(data: str, overrides: Sequence[str], out: Path | None) -> int:
    """Print the findings, and write the page if asked for; returns the exit code."""
    from dataio.doctor import examine
    from dataio.doctor_page import write_page
    from experiment import read_config

    config = read_config(ANY_CONFIG, [f"data.path={json.dumps(data)}", *overrides]).data
    report = examine(config)
    for line in report.lines():
        print(line)
    if out is not None:
        write_page(report, out)
        print(out)
    return 0


if __name__ == "__main__":
    run_script(main)
