"""Write report.html: a run on one page that opens anywhere: curves, views, surface, numbers."""

from __future__ import annotations

from engine import early
from utils.command_line import Parser, output_file
from utils.errors import run_script
from utils.files import check_file

EXAMPLE = """examples:
  python report.py runs/demo
  python report.py runs/demo --out demo.html

The page holds what lies in the run folder by then, and needs no other file and no network: run it
again after render.py, extract_mesh.py and evaluate.py. train.py writes it at its end."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", type=output_file(".html"), metavar="FILE", help="default: RUN/report.html")
    args = parser.parse()
    folder = early.check_run(args.run)
    check_file(args.out or folder / "report.html")

    from engine.report.page import write_report

    path = write_report(folder, args.out)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    run_script(main)
