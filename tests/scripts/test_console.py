"""The commands of an installed copy: what a wheel holds, and that its commands work from any folder."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.sources import ROOT, scripts
from utils import commands

FOLDER = "surfaces_from_photographs"
INSTALLED = ("configs", "dataio", "engine", "models", "utils")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ENTRIES = PROJECT["project"]["scripts"]
LEFT = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built of a copy without network; skips where there is no setuptools that can."""
    least = int(PROJECT["build-system"]["requires"][0].removeprefix("setuptools>="))
    if find_spec("pip") is None or find_spec("setuptools") is None or int(version("setuptools").split(".")[0]) < least:
        pytest.skip(f"no pip, or no setuptools from {least} on")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("*.py", "*.toml", "requirements*.txt", "README.md", "LICENSE"):
        for path in ROOT.glob(name):
            shutil.copy(path, source)
    for name in INSTALLED:
        shutil.copytree(ROOT / name, source / name, ignore=LEFT)
    (source / "utils" / "__pycache__").mkdir()
    (source / "utils" / "__pycache__" / "console.cpython-311.pyc").write_bytes(b"no code")
    pip("wheel", "--no-build-isolation", "-w", str(out), str(source))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def commands_folder(wheel: Path) -> Path:
    """The folder of the commands of a copy that is installed under a name with a blank."""
    place = wheel.parent / "a place"
    pip("install", "--no-compile", "--target", str(place), str(wheel))
    return place / "bin"


def pip(*words: str) -> None:
    """Run pip without network."""
    command = [sys.executable, "-m", "pip", "-q", words[0], "--no-deps", "--no-index", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def called(folder: Path, name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of the installed copy, run in the folder `cwd`."""
    screen = {"PYTHONPATH": str(folder.parent), "PATH": "", "COLUMNS": "100"}
    return subprocess.run([folder / name, *words], cwd=cwd, env=screen, capture_output=True, text=True, timeout=60)


def test_every_script_has_a_command() -> None:
    expected = {f"surfaces-{path.stem.replace('_', '-')}": f"{FOLDER}.utils.console:main" for path in scripts()}
    assert expected == ENTRIES


@pytest.mark.parametrize("name", ["prepare", "view"])
def test_extras_are_the_files_of_requirements(name: str) -> None:
    lines = (ROOT / f"requirements-{name}.txt").read_text("utf-8").splitlines()
    assert PROJECT["project"]["optional-dependencies"][name] == [ln for ln in lines if ln and ln[0] not in "#-"]


def test_a_wheel_holds_the_files_of_a_checkout_in_one_folder(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    files = (path for name in INSTALLED for path in (ROOT / name).rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    expected |= {path.name for path in ROOT.glob("*.py")}
    held = {name.removeprefix(f"{FOLDER}/") for name in names if ".dist-info/" not in name}
    assert held == expected
    assert all(name.startswith(FOLDER) for name in names)


def test_a_wheel_names_commands_and_requirements(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert [line.partition(" = ")[0] for line in texts["entry_points.txt"].splitlines()[1:]] == sorted(ENTRIES)
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    needed = [line for line in lines if line and not line.startswith("#")]
    assert texts["METADATA"].count("Requires-Dist: ") == len(needed) + 3  # and one of each extra


def test_a_command_answers_in_any_folder(commands_folder: Path, tmp_path: Path) -> None:
    done = called(commands_folder, "surfaces-extract-mesh", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: surfaces-extract-mesh ")


def test_an_installed_copy_brings_its_configs(commands_folder: Path, tmp_path: Path) -> None:
    words = ("configs/demo.yaml", "train.steps=0", "output=here")
    done = called(commands_folder, "surfaces-train", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "train.steps: should be" in done.stderr and "no such" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_another_name_is_one_line(commands_folder: Path, tmp_path: Path) -> None:
    (commands_folder / "surfaces-fly").write_text((commands_folder / "surfaces-train").read_text("utf-8"), "utf-8")
    (commands_folder / "surfaces-fly").chmod(0o755)
    done = called(commands_folder, "surfaces-fly", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "surfaces-fly" in done.stderr and "surfaces-train" in done.stderr


@pytest.mark.parametrize(
    ("process", "words"),
    [("bin/surfaces-prepare", ["surfaces-extract-mesh"]), ("prepare.py", ["python", "extract_mesh.py"])],
)
def test_commands_are_named_as_they_are_called(process: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [process])
    assert commands.words_of("extract_mesh.py") == words
