"""The table of reported inputs: made cases of which one ends well, one otherwise, and one is not known."""

import sys

import pytest

from benchmarks import reported_inputs
from benchmarks.reported_inputs import MUST, Ended, Must
from tests.conftest import shared_cases
from tests.support import made_data
from utils.errors import InputError


@pytest.mark.parametrize(
    ("code", "said", "right"),
    [
        (2, "error: k5, k6 - a lens that is not read here", True),
        (0, "error: k5, k6 - a lens that is not read here", False),
        (2, "error: something else", False),
        (2, "Traceback (most recent call last)\nk5, k6 - a lens that is not read here", False),
    ],
)
def test_code_and_words_decide(code, said, right):
    assert Ended(code, said).is_as(Must(2, "k5, k6 - a lens")) == right


def test_a_table_of_made_cases(tmp_path, capsys, monkeypatch):
    made_data.transforms(tmp_path / "good")
    made_data.transforms(tmp_path / "lens/data", k5=0.5)
    cases = {"good": Must(0, ": 10 views"), "lens": Must(2, "k5 - a lens that is not read here")}
    monkeypatch.setattr(reported_inputs, "MUST", cases)
    monkeypatch.setattr(sys, "argv", ["reported_inputs", str(tmp_path)])
    assert reported_inputs.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| good | 0 | configs/neus_hash.yaml: fits; ") and lines[2].endswith(" | yes |")
    assert lines[3].startswith("| lens | 2 | error: ") and lines[-1] == "2 of 2 end as they must"
    monkeypatch.setattr(reported_inputs, "MUST", {**cases, "good": Must(2, "")})
    monkeypatch.setattr(sys, "argv", ["reported_inputs", str(tmp_path), "--only", "good"])
    assert reported_inputs.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 1 end as they must: not good"


@pytest.mark.parametrize("there", [(), ("a", "b")])
def test_a_case_that_is_missing_or_not_known_is_refused(tmp_path, there, monkeypatch):
    monkeypatch.setattr(reported_inputs, "MUST", {"a": Must(0, "")})
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="does not say its end" if there else "no case a - got none"):
        next(reported_inputs.results(tmp_path, {"a": Must(0, "")}))


def test_every_reported_case_has_its_end():
    assert {path.name for path in shared_cases().iterdir() if path.is_dir()} == MUST.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUST)
def test_reported_cases_end_as_they_must(name: str):
    case = shared_cases() / name
    if name == "32":
        pytest.importorskip("pycolmap")
    ended = reported_inputs.run(case)
    assert ended.is_as(MUST[name]), ended.said
