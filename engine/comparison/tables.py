"""A table of runs, for a terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.comparison.runs import ABSENT, Group, different_keys
from utils.errors import InputError

# What is shown of what was measured, where a run has it, with its digits.
COLUMNS = {
    "images.psnr": 2, "images.ssim": 4, "images.flip": 4, "images.lpips": 4, "images.psnr_masked": 2,
    "images.depth_abs_rel": 4, "mesh.chamfer": 5, "mesh.f_score_0.01": 4, "mesh.f_score_at_0.05": 4,
    "mesh.normal_consistency": 4, "mesh.height_median_error": 4, "protocols.dtu.overall": 3,
    "protocols.tanks_and_temples.f_score": 4, "protocols.scannet.f_score": 4, "train.steps": 0, "train.seconds": 0,
}  # fmt: skip
DIGITS = 4  # of others
MOST_KEYS = 6  # of the configs, that are columns
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
           **{char: f"\\{char}" for char in "&%$#_{}"}}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A header and rows of as many words each; numbers: of how many columns, the last ones."""

    header: list[str]
    rows: list[list[str]]
    numbers: int

    def text(self) -> str:
        """For a terminal: columns as wide as they must be, numbers to the right."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        first = len(self.header) - self.numbers

        def line(words: Sequence[str]) -> str:
            cells = zip(words, widths, strict=True)
            return "  ".join(w.ljust(n) if i < first else w.rjust(n) for i, (w, n) in enumerate(cells)).rstrip()

        return "\n".join([line(self.header), *map(line, self.rows)]) + "\n"

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["---"] * (len(self.header) - self.numbers) + ["---:"] * self.numbers
        lines = [self.header, rule, *self.rows]
        return "".join("| " + " | ".join(word.replace("|", r"\|") for word in line) + " |\n" for line in lines)

    def latex(self) -> str:
        """As a tabular that needs no package."""
        columns = "l" * (len(self.header) - self.numbers) + "r" * self.numbers
        lines = [" & ".join(map(latex_text, words)) + r" \\" for words in (self.header, *self.rows)]
        body = "\n".join([lines[0], r"\hline", *lines[1:]])
        return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"


def latex_text(text: str) -> str:
    """Text in which LaTeX sees no commands; a plus-minus sign as one."""
    return "".join(SPECIAL.get(char, char) for char in text).replace("±", r"$\pm$")


def chosen_columns(groups: Sequence[Group], wanted: Sequence[str] | None) -> list[str]:
    """The numbers that are shown: the wanted ones, or those of `COLUMNS` that a run has.

    Raises InputError for a wanted one that no run has.
    """
    known = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.numbers))
    for name in wanted or ():
        if name not in known:
            raise InputError(f"--columns: {name!r} - no run has it - they have {', '.join(known) or 'no numbers'}")
    return list(wanted) if wanted else [name for name in COLUMNS if name in known]


def table_of(groups: Sequence[Group], wanted: Sequence[str] | None = None) -> Table:
    """One row per group: its name, what its config has of its own, means and, of several seeds, their spread.

    Of the config there are the first few keys that all have; those of a part that not all have follow from its type.
    """
    columns = chosen_columns(groups, wanted)
    keys = [key for key in different_keys(groups) if all(group.value(key) != ABSENT for group in groups)][:MOST_KEYS]
    rows = []
    for group in groups:
        said = [shown_value(group.value(key)) for key in keys]
        rows.append([group.name, *said, *(shown_mean(group.mean(name), name) for name in columns)])
    return Table(["run", *_short(keys, columns)], rows, len(columns))


def shown_mean(mean: tuple[float, float | None, int] | None, name: str) -> str:
    """A mean with its spread, `-` for what was not measured."""
    if mean is None:
        return "-"
    digits = COLUMNS.get(name, DIGITS)
    spread = "" if mean[1] is None else f" ± {mean[1]:.{digits}f}"
    return f"{mean[0]:.{digits}f}{spread}"


def shown_value(value: Any) -> str:
    """A value of a config in a few words."""
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def csv_of(groups: Sequence[Group]) -> str:
    """Everything there is of each run, one line each: all keys that differ, all numbers, at full precision."""
    keys = ["seed", *different_keys(groups)]
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.numbers))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *keys, *measured(names, keys)])
    for group in groups:
        for run in group.runs:
            said = [shown_value(run.config.get(key, ABSENT)) for key in keys]
            writer.writerow([run.name, *said, *(run.numbers.get(name, "") for name in names)])
    return text.getvalue()


def differences_of(groups: Sequence[Group]) -> Table:
    """One row per key that differs: its value in each group."""
    rows = [[key, *(shown_value(group.value(key)) for group in groups)] for key in different_keys(groups)]
    return Table(["key", *(group.name for group in groups)], rows, 0)


def _short(keys: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The last words of keys of a config, and numbers without their block, where these tell them from all others."""
    ends = [key.split(".")[-2] if key.endswith(".type") else key.split(".")[-1] for key in keys]
    ends += [name.partition(".")[2] or name for name in columns]
    names = [*keys, *measured(columns, keys)]
    return [end if ends.count(end) == 1 else name for end, name in zip(ends, names, strict=True)]


def measured(names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The names of numbers, told from keys of a config that are called the same, as train.steps."""
    return [f"measured {name}" if name in keys else name for name in names]
