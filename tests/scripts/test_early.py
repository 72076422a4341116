"""What is said before torch is imported: by the schema, the same as by the classes that it was made from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import early, experiment, showing
from engine.evaluation import surfaces
from tests.support import made_data
from tests.support.sources import ROOT
from utils.errors import InputError

CONFIG = ROOT / "configs/neus_hash.yaml"
MISTAKES = (
    "train.raiz=3",
    "device=gpu",
    "train.steps=abc",
    "train.steps=2.5",
    "train.steps=-1",
    "train.minutes=0",
    "train.cuda_graph=on",
    "train.pixels=5",
    "train.pixels={type: patches, side: 8.5}",
    "seed=true",
    "optimizer.lr=fast",
    "optimizer.betas=[1, 2, 3]",
    "optimizer.schedule=cosine",
    "optimizer.schedule={type: cosine}",
    "optimizer.tipe=adam",
    "losses.eik=3",
    "losses.eik={weight: 2}",
    "losses.eikonal.weight=much",
    "losses.msk=null",
    "data.masks=non",
    "data.type=dtuu",
    "data.ram=16",
    "data.up=[1, 2]",
    "data.background=[1, 2, 3]",
    "model=null",
    "model.poses=se",
    "model.background={field: {type: radiance}}",
    "model.foreground.field.encoding=hsah_grid",
    "model.foreground.field.encoding.levls=3",
    "model.foreground.bounds={type: box, low: [1, 2]}",
)


def said(check: object, *arguments: object) -> str:
    try:
        check(*arguments)  # type: ignore[operator]
    except InputError as error:
        return str(error)
    return ""


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema counts as current, which tests/house/test_schema proves, whatever was edited last."""
    monkeypatch.setattr(early, "_may_be_new", lambda words: False)


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_schema_says_what_the_classes_say(mistake: str) -> None:
    assert said(early.check_config, CONFIG, [mistake]) == said(experiment.read_config, CONFIG, [mistake])


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize("text", ["latice", "{type: lattice, resolutoin: 3}", "{resolution: 3}", "lattice", "5"])
def test_a_renderer_is_looked_at_as_it_is_read(text: str) -> None:
    assert said(early.check_renderer, text) == said(showing.read_renderer, text)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_config_is_refused_too_early(path: Path) -> None:
    early.check_config(path)


def test_what_depends_on_keys_elsewhere_is_left_to_the_classes() -> None:
    """An entry of optimizer.parts has the keys of the optimizer's type, which may stand in another file."""
    entry = "optimizer.parts={foreground: {beta: 0.9}}"
    early.check_config(CONFIG, ["optimizer.type=rmsprop", "optimizer.betas=null", entry])


def test_a_source_newer_than_the_schema_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or a type that was added since is no mistake; one that no newer source has is."""
    schema, part = tmp_path / "schema.json", tmp_path / "models/losses/mine.py"
    schema.write_bytes(early.SCHEMA.read_bytes())
    part.parent.mkdir(parents=True)
    part.write_text('class Mine:\n    type: Literal["mine"] = "mine"\n    sharpness: float = 1.0\n')
    monkeypatch.setattr(early, "SCHEMA", schema)
    monkeypatch.setattr(early, "ROOT", tmp_path)
    new = ("losses.mine={type: mine}", "train.sharpness=3")
    wrong = ("losses.mine={type: mien}", "train.sharpnes=3")
    now = schema.stat().st_mtime
    os.utime(part, (now + 3600, now + 3600))
    assert [bool(said(early.check_config, CONFIG, [override])) for override in new + wrong] == [False] * 2 + [True] * 2
    os.utime(part, (now, now))
    assert [bool(said(early.check_config, CONFIG, [override])) for override in new + wrong] == [True] * 4


def test_where_a_run_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(*overrides: str) -> Path:
        return early.output_folder(early.check_config(CONFIG, overrides), CONFIG)

    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder("data.path=a/b/lego") == Path("runs/neus_hash-lego")
    assert folder("data=procedural") == folder("data={type: procedural}") == Path("runs/neus_hash-procedural")
    assert folder() == Path("runs/neus_hash-auto")
    assert folder("output=a/b") == Path("a/b")
    assert folder("output=~/b") == tmp_path / "b"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("output={}/file", "output: {}/file: is no folder"),
        ("output={}/file/run", "output: {}/file/run: cannot be made: {}/file is no folder"),
        ("data.path={}/flie", "data.path: {}/flie - no such file or folder; did you mean 'file'?"),
        ("data.cache={}/file", "data.cache: {}/file: is no folder"),
        ("data={{type: photos, path: {}, prepared: {}/file}}", "data.prepared: {}/file: is no folder"),
        ("teacher={}", "{}: not a run folder"),
    ],
)
def test_places_are_looked_at(override: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path)
    overrides = ["data.path=" + folder, override.format(*[folder] * 2)]
    tree = early.check_config(CONFIG, overrides)
    with pytest.raises(InputError) as caught:
        early.check_places(tree, early.output_folder(tree, CONFIG))
    assert words.format(*[folder] * 2) in str(caught.value)


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'warp', 'cv2', 'scipy', 'trimesh'} & sys.modules.keys()"
    code = f"import sys, engine.early, utils.command_line; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_check_imports_no_compiler_and_no_meshes(tmp_path: Path) -> None:
    """Half of its time once went into imports that it did not need."""
    made_data.transforms(tmp_path)
    command = [sys.executable, "-X", "importtime", "train.py", str(CONFIG), f"data.path={tmp_path}", "--check"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported and "10 views" in done.stdout
    assert imported & {"torch._dynamo", "trimesh", "scipy", "skimage", "tensorboard"} == set()


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize("text", ["dtv", "{type: dtu}", "{type: dtu, scan: 0}", "{type: scannet, voxl: 1}", "generic"])
def test_protocols_are_checked_alike(text: str) -> None:
    assert said(early.check_protocol, text) == said(surfaces.read_protocol, text)
