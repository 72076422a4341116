"""What the documents and the scripts' help promise: links that lead somewhere, commands that exist."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import ROOT, scripts

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SCREEN_LINES, SCREEN_COLUMNS = 40, 100
HEAVY = ("torch", "warp")  # a second and more to import

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
each_script = pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)


def prose(document: Path) -> str:
    """The text of a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.M | re.S)


def anchors(document: Path) -> set[str]:
    """The names that links into a document may use: its headings in lower case, with hyphens."""
    headings = re.findall(r"^#+ +(.*)$", prose(document), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_document
def test_relative_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(document)):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.exists() and path.is_relative_to(ROOT), f"{document.name} links to {target}"
        assert not anchor or path.suffix != ".md" or anchor in anchors(path), f"{document.name}: no #{anchor}"


@each_document
def test_named_commands_and_configs_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), flags=re.M))
    named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)|`make ([a-z-]+)", text, flags=re.M))
    assert {one or other for one, other in named} <= targets
    configs = set(re.findall(r"(?<![\w/])configs/[\w/-]+\.(?:yaml|json)", text))
    assert not {name for name in configs if not (ROOT / name).exists()}


def test_readme_names_the_first_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in readme
    assert "make test" in readme


@cache
def help_of(script: Path) -> tuple[int, str, set[str]]:
    """Exit code, text and imported modules of a script's --help."""
    command = [sys.executable, "-X", "importtime", str(script), "--help"]
    screen = {**os.environ, "COLUMNS": str(SCREEN_COLUMNS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=screen)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    return done.returncode, done.stdout, imported


@each_script
def test_help_fits_a_screen_and_shows_an_example(script: Path) -> None:
    code, text, _ = help_of(script)
    assert code == 0
    assert 0 < len(text.splitlines()) <= SCREEN_LINES
    assert max(map(len, text.splitlines())) <= SCREEN_COLUMNS
    assert f"python {script.name}" in text


@each_document
def test_options_of_commands_exist(document: Path) -> None:
    known = {path.name: path for path in scripts()}
    for name, words in re.findall(r"^(?:\$ )?python (\w+\.py)(.*)$", document.read_text("utf-8"), flags=re.M):
        options = set(re.findall(r"(?<= )--[a-z-]+", words.partition(" #")[0]))
        assert name in known, f"{document.name}: python {name}"
        missing = {option for option in options if option not in help_of(known[name])[1]}
        assert not missing, f"{document.name}: python {name} {missing}"


@each_script
def test_help_answers_without_heavy_imports(script: Path) -> None:
    _, _, imported = help_of(script)
    assert imported
    assert not imported & set(HEAVY)
