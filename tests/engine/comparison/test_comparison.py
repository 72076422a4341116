"""Runs beside one another: who shares a row, means and spreads by hand, files that other programs read."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import compare
from engine import experiment
from engine.comparison.pages import curves_of, views_of
from engine.comparison.runs import Group, different_keys, grouped, read_runs
from engine.comparison.tables import Table, csv_of, latex_text, table_of
from tests.support.sources import ROOT
from utils.config.loading import to_yaml
from utils.errors import InputError
from utils.evaluation.view_scores import write_views
from utils.pictures.charts import Curve, chart, round_numbers

CONFIG = ROOT / "configs/neus_hash.yaml"


def made_run(folder: Path, psnr: float | None, *overrides: str, size: int = 20) -> Path:
    """A run folder as training and evaluate.py leave it, without a model."""
    folder.mkdir(parents=True)
    config = experiment.read_config(CONFIG, [*overrides, f"output={folder}"])
    (folder / "config.yaml").write_text(to_yaml(config))
    if psnr is None:
        return folder
    rows = [{"name": f"v/{view}.jpg", "psnr": psnr + view} for view in range(3)]
    images = {"psnr": psnr, "ssim": 0.5, "views": 3, "per_view": rows, "lpips": None}
    mesh = {"file": "mesh.ply", "chamfer": 0.01, "f_score_0.01": 0.9}
    (folder / "metrics.json").write_text(json.dumps({"images": images, "mesh": mesh}))
    lines = [json.dumps({"step": step, "train/psnr": psnr - 5 / step}) for step in (1, 2, 4)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9, "train/ps']))
    write_views(folder / "evaluation/test.csv", rows)
    for view in range(3):
        for kind, value in (("renderings", psnr), ("truth", 200)):
            path = folder / f"evaluation/test/{kind}/v_{view}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((size, size, 3), int(value), np.uint8)).save(path)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two seeds of one rate, one of another."""
    return [
        made_run(tmp_path / "a_0", 20.0, "optimizer.lr=1e-3", "seed=0"),
        made_run(tmp_path / "b", 30.0, "optimizer.lr=2e-3", "seed=0", "model.foreground.opacity=laplace"),
        made_run(tmp_path / "a_1", 23.0, "optimizer.lr=1e-3", "seed=1", "train.threads=1"),
    ]


def test_seeds_share_a_row(folders: list[Path]) -> None:
    groups = grouped(read_runs(folders))
    assert [group.name for group in groups] == ["a_0 +1", "b"]
    assert groups[0].mean("images.psnr") == (21.5, pytest.approx(3 / np.sqrt(2)), 2)
    assert groups[1].mean("images.psnr") == (30.0, None, 1) and groups[1].mean("images.lpips") is None
    keys = different_keys(groups)
    assert {"model.foreground.opacity.type", "optimizer.lr"} <= set(keys)
    assert not {"seed", "output", "train.threads"} & set(keys)


def test_the_table(folders: list[Path]) -> None:
    table = table_of(grouped(read_runs(folders)))
    assert table.header[0] == "run" and {"opacity", "lr", "psnr", "chamfer", "f_score_0.01"} <= set(table.header)
    column = table.header.index("psnr")
    assert [row[column] for row in table.rows] == ["21.50 ± 2.12", "30.00"]
    assert [row[table.header.index("lr")] for row in table.rows] == ["0.001", "0.002"]
    lines = table.text().splitlines()
    assert len({len(line) for line in lines}) == 1 and "21.50 ± 2.12" in lines[1]
    assert table.markdown().splitlines()[1].endswith("---: |")
    chosen = table_of(grouped(read_runs(folders)), ["images.views"])
    assert chosen.header[-1] == "views" and chosen.rows[0][-1] == "3.0000 ± 0.0000"
    with pytest.raises(InputError, match=r"images.psnr, images.ssim"):
        table_of(grouped(read_runs(folders)), ["images.pnsr"])


def test_all_numbers_as_csv(folders: list[Path]) -> None:
    rows = list(csv.DictReader(csv_of(grouped(read_runs(folders))).splitlines()))
    assert [(row["run"], row["seed"], row["images.psnr"]) for row in rows] == [
        ("a_0", "0", "20.0"), ("a_1", "1", "23.0"), ("b", "0", "30.0")]  # fmt: skip
    assert rows[2]["model.foreground.opacity.type"] == "laplace" and "images.per_view" not in rows[0]


def test_latex_has_no_commands_in_names(tmp_path: Path) -> None:
    assert latex_text("50% a_b & #1 ±") == r"50\% a\_b \& \#1 $\pm$"
    text = Table(["run", "images.psnr"], [[r"a_b\x{}~^", "1 ± 2"]], 1).latex()
    assert text.startswith("\\begin{tabular}{lr}\n\\hline\nrun & images.psnr \\\\\n\\hline\n")
    assert text.endswith("\\hline\n\\end{tabular}\n")
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is not None:  # where there is one
        document = f"\\documentclass{{article}}\\begin{{document}}{text}\\end{{document}}"
        (tmp_path / "t.tex").write_text(document)
        assert subprocess.run([program, "t.tex"], cwd=tmp_path, capture_output=True).returncode == 0


def test_curves_end_where_a_line_is_torn(folders: list[Path]) -> None:
    run = read_runs(folders)[0]
    steps, values = run.curve("train/psnr")
    assert steps.tolist() == [1, 2, 4] and values.tolist() == [15, 17.5, 18.75]
    assert len(run.curve("val/psnr")[0]) == 0
    assert list(curves_of(grouped(read_runs(folders)))) == ["train/psnr"]


def test_the_same_views_side_by_side(folders: list[Path]) -> None:
    """Truth, then a run of each group; only views that all have; enlarged by whole numbers."""
    groups = grouped(read_runs(folders))
    (folders[1] / "evaluation/test/renderings/v_1.png").unlink()
    page = views_of(groups, 3)
    assert page is not None
    middles = [page[page.shape[0] * row // 4, page.shape[1] * column // 6, 0] for row in (1, 3) for column in (1, 3, 5)]
    assert middles == [200, 20, 30, 200, 20, 30]
    shutil.rmtree(folders[1] / "evaluation")
    alone = views_of(groups, 3)
    assert alone is not None and alone.shape[1] < page.shape[1], "a run that kept none is left out"
    shutil.rmtree(folders[0] / "evaluation")
    assert views_of(groups, 3) is None


def test_a_chart_has_its_curves() -> None:
    """A rising line crosses the middle in its color; axes have round numbers; no curve is no fault."""
    x = np.linspace(0, 100, 50)
    picture = chart([Curve("up", x, x**1), Curve("flat", x, np.full(50, np.nan)), Curve("one", x[:1], x[:1])], "title")
    assert picture.shape == (360 + 3 * 17 + 8, 640, 3)
    left, top, right, bottom = 64, 30, 640 - 16, 360 - 30
    row, column = (top + bottom) // 2, (left + right) // 2
    patch = picture[row - 3 : row + 4, column - 3 : column + 4]
    assert (np.abs(patch.astype(int) - [0, 114, 178]).sum(-1) < 40).any()
    corner = picture[top + 20 : top + 40, left + 20 : left + 60]
    assert corner.min() > 200, "nothing but the grid"
    assert chart([], "none").shape[1] == 640
    assert round_numbers(0.0, 1.0) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_numbers(17.3, 29.9) == [20, 22, 24, 26, 28] or round_numbers(17.3, 29.9) == [20, 25]


def test_everything_is_written(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """By the script, of a wildcard in which there is also something else; the page needs no other file."""
    (tmp_path / "notes").mkdir()
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["compare.py", *map(str, [*folders, tmp_path / "notes"]), "--out", str(out)])
    assert compare.main() == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"table.csv", "table.md", "table.tex", "differences.md", "comparison.html", "train_psnr.png",
                     "views.png"}  # fmt: skip
    page = (out / "comparison.html").read_text("utf-8")
    assert page.count("data:image/") == 2 and "://" not in page and "21.50 ± 2.12" in page
    assert "21.50 ± 2.12" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["compare.py", str(tmp_path / "notes")])
    with pytest.raises(InputError, match="not a run folder"):
        compare.main()
    monkeypatch.setattr("sys.argv", ["compare.py", str(folders[0]), str(folders[0])])
    with pytest.raises(InputError, match="twice"):
        compare.main()


def test_a_run_without_numbers_has_a_row(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    runs = [*folders, made_run(tmp_path / "new", None, "optimizer.lr=9e-3")]
    groups = grouped(read_runs(runs))
    table = table_of(groups)
    assert table.rows[-1][0] == "new" and table.rows[-1][table.header.index("psnr")] == "-"
    assert isinstance(groups[-1], Group)
    monkeypatch.setattr("sys.argv", ["compare.py", *map(str, runs), "--out", str(tmp_path / "out")])
    assert compare.main() == 0
    assert "without numbers of held-out views: new: python evaluate.py RUN" in capsys.readouterr().out


def test_steps_that_were_asked_for_are_told_from_those_that_were_done(tmp_path: Path) -> None:
    """A run that was stopped has fewer: two columns of one name would say both."""
    runs = [made_run(tmp_path / str(steps), 20.0, f"train.steps={steps}") for steps in (100, 200)]
    for folder in runs:
        (folder / "metrics.json").write_text(json.dumps({"train": {"steps": 50}}))
    groups = grouped(read_runs(runs))
    header = table_of(groups).header
    assert header[-2:] == ["train.steps", "measured train.steps"] and len(set(header)) == len(header)
    row = next(csv.DictReader(csv_of(groups).splitlines()))
    assert (row["train.steps"], float(row["measured train.steps"])) == ("100", 50.0)
