"""COLMAP, LLFF, NeRF++ and BlendedMVS data that are wrong, lie or attack: one line, no harm, at once."""

import os
import pickle
import shutil
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataio.formats.blendedmvs import BlendedMvsData
from dataio.formats.colmap import ColmapData
from dataio.formats.colmap_model import read_model
from dataio.formats.llff import LlffData
from dataio.formats.nerfpp import NerfPlusPlusData
from dataio.scene import DataConfig
from tests.support import made_models
from utils.errors import InputError

WRITERS: dict[str, tuple[Callable[..., None], type[DataConfig]]] = {
    "text": (made_models.colmap_text, ColmapData),
    "binary": (made_models.colmap_binary, ColmapData),
    "llff": (made_models.llff, LlffData),
    "nerfpp": (made_models.nerfpp, NerfPlusPlusData),
    "blendedmvs": (made_models.blendedmvs, BlendedMvsData),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    """A small sound set in every form."""
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, folder in folders.items():
        WRITERS[name][0](made_models.ring(6, points=30), folder)
    return folders


def refused(kind: str, folder: Path, *words: str, **options: Any) -> None:
    """Loading ends in one line that holds the words, within two seconds and little memory."""
    tracemalloc.start()
    begin = time.monotonic()
    with pytest.raises(InputError) as caught:
        WRITERS[kind][1](path=str(folder), **options).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < 700
    for word in words:
        assert word in line, (word, line)
    assert time.monotonic() - begin < 2 and peak < 64 * 2**20


def copy(sound: dict[str, Path], kind: str, folder: Path) -> Path:
    return Path(shutil.copytree(sound[kind], folder / kind))


# file of the binary model, offset, format, value, words of the message
LIES = {
    "cameras count": ("cameras", 0, "<Q", 2**60, ["cameras.bin", "room for"]),
    "images count": ("images", 0, "<Q", 2**40, ["images.bin", "room for"]),
    "images count by one": ("images", 0, "<Q", 7, ["images.bin"]),
    "fewer images": ("images", 0, "<Q", 5, ["images.bin", "left after"]),
    "points count": ("points3D", 0, "<Q", 2**63, ["points3D.bin", "room for"]),
    "track length": ("points3D", 51, "<Q", 2**61, ["points3D.bin", "points3D[0]"]),
    "observations": ("images", 8 + 64 + 13, "<Q", 2**60, ["images.bin", "cam0/000.png"]),
    "camera model": ("cameras", 12, "<i", 99, ["cameras.bin", "model 99"]),
    "camera model below": ("cameras", 12, "<i", -1, ["cameras.bin", "model -1"]),
    "width zero": ("cameras", 16, "<Q", 0, ["cameras.bin", "0 x 16"]),
    "width huge": ("cameras", 16, "<Q", 2**60, ["cameras.bin"]),
    "camera missing": ("images", 8 + 60, "<I", 77, ["camera 77"]),
    "camera twice": ("cameras", 8 + 56, "<I", 10, ["CAMERA_ID"]),
    "point beyond": ("points3D", 8, "<Q", 2**63, ["POINT3D_ID"]),
}


@pytest.mark.parametrize("case", LIES)
def test_binary_models_that_lie(sound, tmp_path, case):
    part, offset, form, value, words = LIES[case]
    folder = copy(sound, "binary", tmp_path)
    path = folder / f"sparse/0/{part}.bin"
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, value)
    path.write_bytes(content)
    refused("binary", folder, *words)


POSES = {
    "quaternion NaN": (12, np.nan), "translation NaN": (12 + 32, np.nan), "translation huge": (12 + 32, 1e300),
}  # fmt: skip


@pytest.mark.parametrize("case", POSES)
def test_a_bad_pose_in_ten_is_left_out_and_many_are_refused(tmp_path, capsys, case):
    offset, value = POSES[case]
    made_models.colmap_binary(made_models.ring(10, points=0), tmp_path)
    path = tmp_path / "sparse/0/images.bin"
    content = bytearray(path.read_bytes())
    each = (len(content) - 8) // 10
    struct.pack_into("<d", content, offset, value)
    path.write_bytes(content)
    assert len(ColmapData(path=str(tmp_path)).load().names) == 9
    assert "1 of 10 views" in capsys.readouterr().err
    for view in range(4):
        struct.pack_into("<d", content, offset + view * each, value)
    path.write_bytes(content)
    refused("binary", tmp_path, "pose", "4 of 10")


def test_a_quaternion_of_zeros_and_a_focal_length_below_zero(sound, tmp_path):
    folder = copy(sound, "binary", tmp_path)
    path = folder / "sparse/0/cameras.bin"
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<d", 30.0), struct.pack("<d", -30.0)))
    refused("binary", folder, "focal length")
    shutil.rmtree(folder)
    folder = copy(sound, "text", tmp_path)
    path = folder / "sparse/0/images.txt"
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join([w[0], *"0000", *w[5:]] if len(w) == 10 else w) for w in lines))
    refused("text", folder, "pose", "NaN")


TEXTS = {
    "cameras": ["1", "1 PINHOLE", "1 PINHOLE 24 16 1 2 3", "1 NOSUCH 24 16 1 2 3", "x PINHOLE 24 16 1 2 3 4",
                "1 PINHOLE 24 16 a b c d", "-1 PINHOLE 24 16 1 2 3 4", "1 PINHOLE 0 16 1 2 3 4", "\0\0\0", "é ñ",
                "1 PINHOLE 99999999999999999999 16 1 2 3 4"],
    "images": ["1 1 0 0 0 0 0 0 10", "a 1 0 0 0 0 0 0 10 x.png\n", "1 1 0 0 b 0 0 0 10 x.png\n",
               "1 1 0 0 0 0 0 0 10 x.png\n1 2", "1 1 0 0 0 0 0 0 10 x.png\n1 2 z", "1 1 0 0 0 0 0 0 99 x.png\n",
               "1 1 0 0 0 0 0 0 10 x.png\n\n1 1 0 0 0 0 0 0 10 y.png\n", "", "# only a comment"],
    "points3D": ["1 2 3", "1 2 3 4 5 6 7 8 9", "1 a 3 4 5 6 7 8", "q 2 3 4 5 6 7 8", "1 2 3 4 5 6 7 z",
                 "1 2 3 4 5 6 7 8\n1 2 3 4 5 6 7 8"],
}  # fmt: skip


@pytest.mark.parametrize(("part", "text"), [(part, text) for part, texts in TEXTS.items() for text in texts])
def test_text_models_that_are_broken(sound, tmp_path, part, text):
    folder = copy(sound, "text", tmp_path)
    (folder / f"sparse/0/{part}.txt").write_text(text)
    refused("text", folder, "sparse/0")


def test_text_with_a_mark_foreign_line_ends_and_names_with_spaces(tmp_path):
    shot = made_models.ring(6)
    shot.names = [f"my photo {view}.png" for view in range(6)]
    made_models.colmap_text(shot, tmp_path)
    for path in (tmp_path / "sparse/0").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    views = ColmapData(path=str(tmp_path)).parse()
    assert views.names == shot.names and views.points is not None


OUTSIDE = [
    "../../../etc/passwd", "/etc/passwd", "..\\..\\x.png", "~/x.png", "http://x/y.png", "../x.png", "a/../../x.png",
    "", ".", "..", "a/..", "x" * 300, "\x1b[31m/../../x.png", "../images2/x.png", "./../x.png", "//etc/passwd",
]  # fmt: skip


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """The files that were opened since the list was cleared."""
    names: list[str] = []
    watching = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            names.append(os.fsdecode(arguments[0]))

    sys.addaudithook(hook)
    yield names
    watching[0] = False  # a hook cannot be taken out again


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["binary", "text"])
def test_names_that_lead_out(sound, tmp_path, opened, kind, name):
    folder = copy(sound, kind, tmp_path)
    path = folder / f"sparse/0/images.{'bin' if kind == 'binary' else 'txt'}"
    path.write_bytes(path.read_bytes().replace(b"cam0/000.png", name.encode()))
    made_models.picture(tmp_path / "x.png")
    opened.clear()
    refused(kind, folder)
    assert not [file for file in opened if not Path(file).resolve().is_relative_to(folder) and "passwd" in file]
    assert str(tmp_path / "x.png") not in opened


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        ("binary", "images"), ("binary", "images/cam0/000.png"), ("binary", "sparse/0/images.bin"),
        ("binary", "sparse"), ("binary", "masks"), ("text", "train_list.txt"), ("llff", "images"),
        ("llff", "images/cam0_000.png"),
        ("llff", "poses_bounds.npy"), ("nerfpp", "train/pose/000000.txt"), ("nerfpp", "train/rgb/000000.png"),
        ("nerfpp", "train/intrinsics"), ("blendedmvs", "cams/00000000_cam.txt"),
        ("blendedmvs", "blended_images/00000000.png"), ("blendedmvs", "blended_images"),
    ],
)  # fmt: skip
def test_links_that_lead_out(sound, tmp_path, opened, kind, link):
    folder, secret = copy(sound, kind, tmp_path), tmp_path / "secret"
    if (folder / link).exists():
        shutil.move(folder / link, secret)
    elif link == "masks":
        secret.mkdir()
    else:
        secret.write_text("cam0/000.png")
    os.symlink(secret, folder / link)
    opened.clear()
    refused(kind, folder, "allow_outside")
    assert not [file for file in opened if Path(file).resolve().is_relative_to(secret)]
    if link != "masks":  # an empty folder has no masks
        assert len(WRITERS[kind][1](path=str(folder), allow_outside=True).load().names) in (5, 6)


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_nothing_is_unpickled(sound, tmp_path):
    folder = copy(sound, "llff", tmp_path)
    np.save(folder / "poses_bounds.npy", np.array([Canary(tmp_path / "sung")], dtype=object), allow_pickle=True)
    refused("llff", folder, "poses_bounds.npy")
    (folder / "poses_bounds.npy").write_bytes(pickle.dumps(Canary(tmp_path / "sung")))
    refused("llff", folder, "poses_bounds.npy")
    assert not (tmp_path / "sung").exists()


def npy(shape: str, descr: str = "<f8") -> bytes:
    """A header that claims an array, and a little of it."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.encode() + bytes(800)


BAD_ARRAYS = {
    "empty": b"", "text": b"1 2 3", "huge": npy("(1099511627776, 17)"), "negative": npy("(-3, 17)"),
    "zip": b"PK\x05\x06" + bytes(18),
    "columns": npy("(6, 16)"), "one axis": npy("(100,)"), "scalar": npy("()"), "whole": npy("(5, 17)", "<i8"),
    "rows": npy("(5, 17)"), "none": npy("(0, 17)"), "header": npy("(6, 17"), "deep": npy("(" * 40 + "6"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(sound, tmp_path, case):
    folder = copy(sound, "llff", tmp_path)
    (folder / "poses_bounds.npy").write_bytes(BAD_ARRAYS[case])
    refused("llff", folder, "poses_bounds.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0, 1e300])
@pytest.mark.parametrize("column", [4, 9, 14, 3, 0])
def test_llff_numbers(sound, tmp_path, column, value):
    folder = copy(sound, "llff", tmp_path)
    table = np.load(folder / "poses_bounds.npy", allow_pickle=False)
    table[:, column] = value
    np.save(folder / "poses_bounds.npy", table)
    if column == 3 and abs(value) <= 1:
        LlffData(path=str(folder)).load()  # a place like any other
    else:
        refused("llff", folder, "poses_bounds.npy")


def test_missing_parts(sound, tmp_path):
    folder = copy(sound, "llff", tmp_path)
    next((folder / "images").iterdir()).unlink()
    refused("llff", folder, "6 poses", "5 pictures")
    shutil.rmtree(folder / "images")
    refused("llff", folder, "no pictures")
    folder = copy(sound, "binary", tmp_path)
    shutil.rmtree(folder / "images")
    refused("binary", folder, "none of its pictures", "cam0/000.png")
    (folder / "sparse/0/images.bin").unlink()
    refused("binary", folder, "no COLMAP model")
    refused("binary", folder, "no COLMAP model", model="sparse/0")
    refused("binary", folder, "data.model", model="../..")
    folder = copy(sound, "nerfpp", tmp_path)
    (folder / "train/intrinsics/000001.txt").unlink()
    refused("nerfpp", folder, "000001.txt")
    shutil.rmtree(folder / "train/rgb")
    refused("nerfpp", folder, "no train/rgb")
    folder = copy(sound, "blendedmvs", tmp_path)
    for path in (folder / "cams").iterdir():
        path.unlink()
    refused("blendedmvs", folder, "0 cameras")


NUMBERS = ["", "1 2 3", "a " * 16, "nan " * 16, "0 " * 16, "1e400 " * 16, "9" * 70_000, "\0", "1 " * 17]


@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize("part", ["pose", "intrinsics"])
def test_bad_nerfpp_matrices(sound, tmp_path, part, text):
    folder = copy(sound, "nerfpp", tmp_path)
    for path in folder.rglob(f"{part}/*.txt"):
        path.write_text(text)
    refused("nerfpp", folder)


@pytest.mark.parametrize("text", [*NUMBERS, "extrinsic", "extrinsic " + "1 " * 16 + "intrinsic " + "x " * 9,
                                  "extrinsic " + "1 " * 16 + "intrinsic " + "1 " * 9])  # fmt: skip
def test_bad_blendedmvs_cameras(sound, tmp_path, text):
    folder = copy(sound, "blendedmvs", tmp_path)
    for path in (folder / "cams").glob("*_cam.txt"):
        path.write_text(text)
    refused("blendedmvs", folder, "cam")


FUZZED = {
    "binary": ["sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin", "sparse/0/frames.bin"],
    "text": ["sparse/0/cameras.txt", "sparse/0/images.txt", "sparse/0/points3D.txt"],
    "llff": ["poses_bounds.npy"],
    "nerfpp": ["train/pose/000001.txt", "train/intrinsics/000001.txt"],
    "blendedmvs": ["cams/00000001_cam.txt"],
}


def mutant(content: bytes, random: np.random.Generator) -> bytes:
    """Bytes with a few changed, cut out, doubled, or the end cut off; often numbers that are odd.

    Every other one is mild, one byte or digit of it changed: a fuzz of nothing but wrecks tests the first check only.
    """
    data = bytearray(content)
    if random.random() < 0.5:
        digits = [place for place, byte in enumerate(data) if 48 <= byte < 58]
        places = digits if data.isascii() and digits else range(len(data))
        data[places[int(random.integers(0, len(places)))]] = int(random.integers(48, 58))
        return bytes(data)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(0, max(1, len(data))))
        match int(random.integers(0, 6)):
            case 0:
                data[place : place + 1] = bytes([int(random.integers(0, 256))])
            case 1:
                del data[place : place + int(random.integers(1, 40))]
            case 2:
                data[place:place] = data[place : place + int(random.integers(1, 40))]
            case 3:
                del data[place:]
            case 4:
                data[place : place + 8] = struct.pack("<d", random.choice([np.nan, np.inf, -1.0, 1e300, 1e-300, 0.0]))
            case _:
                odd = [b"-1", b"nan", b"1e999", b" ", b"\n", b"\xff" * 7 + b"\x7f", b"9" * 30, b"#", b"\0"]
                data[place : place + 2] = odd[int(random.integers(0, len(odd)))]
    return bytes(data)


def fuzz(kind: str, file: str, folder: Path, count: int) -> int:
    """Load `count` mutants of one file; how many were loaded. Anything but an InputError passes through."""
    original, loaded = (folder / file).read_bytes(), 0
    random = np.random.default_rng(count + len(original))
    for _ in range(count):
        (folder / file).write_bytes(mutant(original, random))
        begin = time.monotonic()
        try:
            WRITERS[kind][1](path=str(folder)).load()
            loaded += 1
        except InputError as error:
            assert "\n" not in str(error) and str(error).isprintable()
        assert time.monotonic() - begin < 5
    return loaded


@pytest.mark.parametrize(("kind", "file"), [(kind, file) for kind, files in FUZZED.items() for file in files])
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutants_load_or_are_refused(sound, tmp_path, kind, file, count):
    loaded = fuzz(kind, file, copy(sound, kind, tmp_path), count)
    assert loaded > 0.05 * count
    if "frames" in file:
        assert loaded == count  # nobody looks


def test_a_large_model_is_read_in_time_and_little_memory(tmp_path):
    """40 photographs with 5,000 observations each, of 20,000 points."""
    shot = made_models.ring(40, points=5000)
    made_models.colmap_binary(shot, tmp_path)
    begin = time.monotonic()
    tracemalloc.start()
    model = read_model(tmp_path / "sparse/0", root=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(model.photos) == 40 and len(model.points.number) == 5000
    assert time.monotonic() - begin < 5 and peak < 40 * 2**20
