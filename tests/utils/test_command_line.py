"""The scripts' command lines: what cannot be used is one line that says what to write."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from utils.command_line import Parser, device, input_file, number, output_file, output_folder, override
from utils.errors import InputError
from utils.files import check_file, check_folder

KEYS = ["device", "data.path", "data.downscale", "train.steps", "train.micro_batch"]


def parser() -> Parser:
    made = Parser("about", "examples", keys=lambda: KEYS)
    made.add_argument("config")
    made.add_argument("overrides", nargs="*", default=[], type=override, metavar="key.sub=value")
    made.add_argument("--check", action="store_true")
    made.add_argument("--size", type=number(int, 1, 8))
    made.add_argument("--share", type=number(float, 0, 1))
    made.add_argument("--device", type=device)
    made.add_argument("--out", type=output_file(".ply", ".glb"))
    made.add_argument("--folder", type=output_folder)
    made.add_argument("--mesh", type=input_file("a mesh", ".ply"))
    return made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "the following arguments are required: config - --help shows examples"),
        ("a --train.steps=3", "--train.steps: no such option - write train.steps=3"),
        ("a --train.stepps 3", "--train.stepps: no such option - write train.steps=3"),
        ("a --data X", "--data: no such option - write data.path=X"),
        ("a --downscale", "--downscale: no such option - write data.downscale=VALUE"),
        ("a --micro-batch 32 b=1", "--micro-batch: no such option - write train.micro_batch=32"),
        ("a --chek", "--chek: no such option; did you mean '--check'? - --help shows all"),
        ("a --zzz", "--zzz: no such option - --help shows all"),
        ("a --size 0", "--size: got '0' - expected a whole number from 1 to 8 - --help shows examples"),
        ("a --size 2.5", "--size: got '2.5' - expected a whole number from 1 to 8 - --help shows examples"),
        ("a --share nan", "--share: got 'nan' - expected a number from 0 to 1 - --help shows examples"),
        ("a --device gpu", "--device: got 'gpu' - expected one like auto, cpu, cuda, cuda:1 - --help shows examples"),
        ("a --out x.stl", "--out: got 'x.stl' - expected a file that ends in .ply or .glb - --help shows examples"),
        ("a --mesh msh.ply", "--mesh: msh.ply: no such file; did you mean 'mesh.ply'? - expected a mesh"),
        ("a --mesh mesh.txt", "--mesh: got 'mesh.txt' - expected a mesh, a file in .ply"),
        ("a --out mesh.ply/x.ply", "--out: mesh.ply: is no folder - expected another place to write to"),
        ("a mesh.ply", "key.sub=value: got 'mesh.ply' - expected key.sub=value, as data.path=mesh.ply"),
        ("a data=mesh.ply", "key.sub=value: got 'data=mesh.ply' - expected key.sub=value, as data.path=mesh.ply"),
        ("a --folder mesh.ply", "--folder: mesh.ply: is no folder - expected another place to write to"),
    ],
)
def test_a_mistake_is_one_line(words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mesh.ply").touch()
    (tmp_path / "mesh.txt").touch()
    with pytest.raises(InputError) as caught:
        parser().parse(words.split())
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize("text", ["15", "4097", "-1", "nan", "inf", "1e308", "9" * 400, "9" * 9000, "", "a\nb", "0x20"])
def test_a_number_beyond_its_ends_is_one_short_line(text: str, kind: type[int] | type[float]) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        number(kind, 16, 4096)(text)
    assert str(caught.value).startswith(f"got {text[:60]!r} - expected ") and len(str(caught.value)) < 120
    assert number(kind, 16, 4096)("16") == 16 and number(kind, 16, 4096)("4096") == 4096


def test_arguments_may_stand_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = parser().parse(["a", "--size", "8", "b=1", "--out", "new/x.PLY", "c=2", "--device", "cuda:1", "--debug"])
    assert (args.config, args.overrides, args.size, args.device) == ("a", ["b=1", "c=2"], 8, "cuda:1")
    assert args.out == Path("new/x.PLY") and not args.out.parent.exists() and args.debug


def test_what_stands_in_the_way_of_an_output_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is no folder, a folder no file, and folders that are missing are no fault; nothing is made by looking."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "file", tmp_path / "file/below/it", tmp_path / "loop/below"):
        with pytest.raises(InputError, match=r"no folder - expected another place"):
            check_folder(path)
    with pytest.raises(InputError, match="is a folder - expected the name of a file"):
        check_file(tmp_path)
    with pytest.raises(InputError, match=r"^output: .*file: is no folder"):
        check_folder(tmp_path / "file", "output")
    check_folder(tmp_path / "new/folders")
    check_file(tmp_path / "new/file.ply")
    check_file(tmp_path / "file")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "loop"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="no permission to write in"):
        check_file(tmp_path / "new/file.ply")
