"""Every script's frame: exit codes, one line per mistake, no traceback unless asked for."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.sources import ROOT
from utils.errors import InputError, StorageError, run_script


def fail(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 75, 75, ""),
        (fail(InputError("a.yaml:1:1: no\nb.yaml: \x1b[31mred")), 2,
         "error: a.yaml:1:1: no\nerror: b.yaml: \\x1b[31mred\n"),
        (fail(StorageError("disk full at x, 3 MB needed")), 4, "error: disk full at x, 3 MB needed\n"),
        (fail(KeyboardInterrupt()), 130, "interrupted\n"),
        (fail(SystemExit(7)), 7, ""),
    ],
)  # fmt: skip
def test_codes_and_lines(
    main: Callable[[], int | None], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert (caught.value.code, capsys.readouterr().err) == (code, said)


def test_bugs_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        run_script(fail(ZeroDivisionError()))


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--debug"])
    with pytest.raises(SystemExit):
        run_script(fail(InputError("no")))
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("\nerror: no\n")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_is_no_error(lines: int) -> None:
    code = f"from utils.errors import run_script\nrun_script(lambda: print('line\\n' * {lines}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141
    process.stderr.close()


@pytest.mark.parametrize("code", [0, 3])
def test_a_script_that_leaves_at_once_says_everything_and_its_code(code: int) -> None:
    text = (
        "import atexit, sys\nfrom utils.errors import leave_at_once, run_script\n"
        "atexit.register(print, 'cleared up')\nleave_at_once()\n"
        f"run_script(lambda: print('said') or print('so', file=sys.stderr) or {code})"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\n", "so\n")


def test_a_script_that_leaves_at_once_after_an_error_says_it() -> None:
    text = (
        "from utils.errors import InputError, leave_at_once, run_script\n"
        "def main():\n    leave_at_once()\n    print('said')\n    raise InputError('no')\nrun_script(main)"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "said\n", "error: no\n")
