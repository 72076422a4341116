"""Lay runs beside one another: a table, their curves, the same held-out views, what differs in them."""

from __future__ import annotations

from pathlib import Path

from utils.command_line import Parser, number, output_folder
from utils.errors import run_script
from utils.files import write_bytes

EXAMPLE = """examples:
  python compare.py runs/rates/*
  python compare.py runs/a runs/b --columns images.psnr,mesh.chamfer --out comparison

Runs that differ in the seed alone share a row: mean ± standard deviation.
Writes into --out: table.csv, table.md, table.tex, differences.md, a PNG for each curve, views.png
(of runs that evaluate.py --keep-renderings has measured), and all of it as comparison.html."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="run folders")
    add("--columns", metavar="N,...", help="numbers of metrics.json, as images.psnr; default: what is there")
    add("--views", type=number(int, 1, 100), default=3, metavar="N", help="held-out views that are shown; default: 3")
    add("--out", type=output_folder, default=Path("comparison"), metavar="DIR", help="default: comparison")
    args = parser.parse()

    from engine.comparison.pages import curves_of, page_of, views_of
    from engine.comparison.runs import grouped, read_runs
    from engine.comparison.tables import csv_of, differences_of, table_of
    from utils.pictures.images import write_png

    wanted = [name.strip() for name in args.columns.split(",")] if args.columns else None
    groups = grouped(read_runs(run_folders(args.runs)))
    table, differences = table_of(groups, wanted), differences_of(groups)
    pictures = curves_of(groups)
    views = views_of(groups, args.views)
    shown = pictures if views is None else {**pictures, "views": views}
    texts = {
        "table.csv": csv_of(groups),
        "table.md": table.markdown(),
        "table.tex": table.latex(),
        "differences.md": differences.markdown(),
        "comparison.html": page_of({"Numbers": table, "What differs": differences}, shown),
    }
    for name, text in texts.items():
        write_bytes(args.out / name, text.encode())
    files = {f"{name.replace('/', '_')}.png": picture for name, picture in shown.items()}
    for name, picture in files.items():
        write_png(args.out / name, picture)
    print(table.text(), end="")
    runs = [run for group in groups for run in group.runs]
    if lacking := [run.name for run in runs if "images.psnr" not in run.numbers]:
        print(f"without numbers of held-out views: {', '.join(lacking)}: python evaluate.py RUN measures them")
    if views is None:
        print("no views side by side: python evaluate.py RUN --keep-renderings keeps them")
    print(f"{args.out}: {', '.join([*texts, *files])}")
    return 0


def run_folders(paths: list[Path]) -> list[Path]:
    """The run folders among paths: of a wildcard, files and folders of something else are left out.

    Raises InputError where one path was named that is no run, or none of many is one.
    """
    found = [path for path in paths if (path / "config.yaml").is_file() or (path / "manifest.json").is_file()]
    return found or paths


if __name__ == "__main__":
    run_script(main)
