"""The files from which others install or cite the project: read, and compared with what they repeat."""

import re
import tomllib

import pytest
import yaml

from tests.support.sources import ROOT, scripts

FILES = ("CITATION.cff", "Dockerfile", ".dockerignore", "environment.yml", "pyproject.toml")
HOST = re.compile(r"https?://|\b[\w-]+\.(?:org|com|io|net|dev)\b", re.I)
OUTSIDE = re.compile(r"(?<![\w.$}])/(?:home|root|work|mnt|opt|srv|Users)\b")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("name", FILES)
def test_no_registry_and_no_machine_is_named(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert HOST.findall(text) == []
    assert OUTSIDE.findall(text) == []


def test_the_rules_see() -> None:
    assert HOST.search("FROM registry.example.com/python") and HOST.search("--index-url http://localhost")
    assert OUTSIDE.search('COPY . "/home/me"') and not OUTSIDE.search("COPY . /source")


def test_the_citation_says_what_the_project_says() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "type"} <= citation.keys()
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["title"].lower().replace(" ", "-") == PROJECT["name"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_environment_is_made_of_our_requirements() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *_, wheels = environment["dependencies"]
    files = [line.split() for line in wheels["pip"]]
    assert all(option in ("-c", "-r") and (ROOT / name).is_file() for option, name in files)
    python = next(each for each in environment["dependencies"] if str(each).startswith("python="))
    assert f"ARG PYTHON={python.partition('=')[2]}\n" in (ROOT / "Dockerfile").read_text("utf-8")


def test_the_image_is_built_of_files_that_are_there() -> None:
    lines = re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.M)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines and all(list(ROOT.glob(name)) for line in lines for name in line.split() if name != ".")
    assert not {"configs", "dataio", "engine", "models", "utils", "README.md", "LICENSE"} & set(ignored)


def test_the_page_names_every_command() -> None:
    page = (ROOT / "docs/install.md").read_text("utf-8")
    named = set(re.findall(r"`(surfaces-[a-z-]+)`", page))
    assert named == {f"surfaces-{path.stem.replace('_', '-')}" for path in scripts()}
