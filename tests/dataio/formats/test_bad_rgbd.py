"""Recordings that are wrong: one line each, nothing large allocated, nothing read outside the folder."""

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataio.formats.scannet import ScannetData
from dataio.formats.seven_scenes import SevenScenesData
from dataio.recognition import AutoData
from dataio.scene import DataConfig, Scene
from tests.dataio.formats.test_bad_data import png_header, refused
from tests.support import made_rgbd
from utils.errors import InputError

EYE = made_rgbd.text(np.eye(4))


def overwrite(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in folder.glob(name):
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def remove(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in sorted(folder.glob(name)):
            path.rmdir() if path.is_dir() else path.unlink()

    return change


def cut(name: str, length: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:length])

    return change


def small(name: str, mode: str = "I;16") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        Image.new(mode, (8, 6)).save(next(folder.glob(name)))

    return change


def pose(change: Callable[[np.ndarray], object]) -> str:
    matrix = np.eye(4)
    change(matrix)
    return made_rgbd.text(matrix)


BAD_MATRICES: dict[str, tuple[str, list[str]]] = {
    "empty": ("", ["numbers"]),
    "words": ("a b c d\n" * 4, ["not a matrix"]),
    "ragged": ("1 0 0 0\n0 1 0\n", ["not a matrix"]),
    "three rows": ("1 0 0 0\n" * 3, ["(3, 4)"]),
    "long": ("1 " * 5000, ["4096 bytes"]),
    "binary": ("\x00\x01\x02", ["not a matrix"]),
    "accents": ("é 0 0 0\n" * 4, ["not a matrix"]),
    "huge number": ("1e999 0 0 0\n" * 4, []),
    "underscores and hex": ("0x1 0 0 0\n" * 4, ["not a matrix"]),
}


@pytest.mark.parametrize("case", BAD_MATRICES)
@pytest.mark.parametrize("name", ["pose/*.txt", "intrinsic/intrinsic_depth.txt"])
def test_bad_matrices(tmp_path: Path, case: str, name: str) -> None:
    made_rgbd.scannet(tmp_path)
    content, words = BAD_MATRICES[case]
    overwrite(name, content)(tmp_path)
    refused(ScannetData(path=str(tmp_path)), str(tmp_path), *words)


COLOR_FILE = "intrinsic/intrinsic_color.txt"
BAD_SCANNET: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "all poses lost": (overwrite("pose/*.txt", made_rgbd.text(made_rgbd.LOST)), ["no pose", "10"]),
    "all poses NaN": (overwrite("pose/*.txt", "nan nan nan nan\n" * 4), ["no pose"]),
    "poses scaled": (overwrite("pose/*.txt", made_rgbd.text(2 * np.eye(4))), ["pose", "orthonormal"]),
    "poses mirrored": (overwrite("pose/*.txt", pose(lambda m: m.__setitem__((0, 0), -1))), ["mirrored"]),
    "poses equal": (overwrite("pose/*.txt", EYE), ["equal"]),
    "no poses": (remove("pose/*.txt"), ["pose", "0 poses"]),
    "no colors": (remove("color/*.jpg"), ["no images"]),
    "most colors gone": (remove("color/[0-6].jpg"), ["7 of 10"]),
    "no depths": (remove("depth/*.png"), ["no images"]),
    "a depth gone": (remove("depth/4.png"), ["4.png", "no such image"]),
    "no depth calibration": (remove("intrinsic/intrinsic_depth.txt"), ["intrinsic_depth.txt"]),
    "focal zero": (overwrite(COLOR_FILE, pose(lambda m: m.__setitem__((0, 0), 0))), ["focal"]),
    "depth focal zero": (overwrite("intrinsic/intrinsic_depth.txt", "0 0 0 0\n" * 4), ["intrinsic_depth", "focal"]),
    "depth focal NaN": (overwrite("intrinsic/intrinsic_depth.txt", "nan 0 0 0\n" * 4), ["intrinsic_depth", "focal"]),
    "principal point": (overwrite(COLOR_FILE, pose(lambda m: m.__setitem__((0, 2), -9))), ["principal"]),
    "extrinsic scaled": (overwrite("intrinsic/extrinsic_depth.txt", "3 0 0 0\n" * 4), ["extrinsic_depth"]),
    "extrinsic NaN": (overwrite("intrinsic/extrinsic_color.txt", "nan 0 0 0\n" * 4), ["extrinsic_color"]),
    "depth of another size": (small("depth/3.png"), ["8 x 6", "20 x 16"]),
    "depth in 8 bits": (small("depth/3.png", "L"), ["3.png", "16 bits"]),
    "depth is text": (overwrite("depth/3.png", "no picture"), ["3.png", "not a readable image"]),
    "depth bomb": (overwrite("depth/3.png", png_header(100_000, 100_000)), ["3.png"]),
    "color bomb": (overwrite("color/3.jpg", png_header(100_000, 100_000)), ["3.jpg"]),
    "color cut": (cut("color/3.jpg", 200), ["3.jpg"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SCANNET)
def test_bad_scannet(tmp_path: Path, case: str) -> None:
    made_rgbd.scannet(tmp_path)
    change, words = BAD_SCANNET[case]
    change(tmp_path)
    refused(ScannetData(path=str(tmp_path)), *words)


BAD_SEVEN: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "split of words": (overwrite("TrainSplit.txt", "sequence1\n../../etc\n"), ["TrainSplit.txt:2", "sequenceN"]),
    "split of paths": (overwrite("TestSplit.txt", "/etc/passwd\n"), ["TestSplit.txt:1"]),
    "split binary": (overwrite("TrainSplit.txt", b"\xff\x00\xfe"), ["TrainSplit.txt:1"]),
    "split long": (overwrite("TrainSplit.txt", "sequence1\n" * 10_000), ["TrainSplit.txt", "bytes"]),
    "sequences not there": (overwrite("*Split.txt", "sequence77\n"), ["0 frames"]),
    "split empty": (overwrite("*Split.txt", ""), ["0 frames"]),
    "poses lost": (overwrite("seq-*/*.pose.txt", made_rgbd.text(made_rgbd.LOST)), ["no pose"]),
    "no pictures": (remove("seq-*/*.color.png"), ["no images"]),
    "a depth cut": (cut("seq-01/frame-000002.depth.png", 4), ["frame-000002.depth.png"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SEVEN)
def test_bad_seven_scenes(tmp_path: Path, case: str) -> None:
    made_rgbd.seven_scenes(tmp_path)
    change, words = BAD_SEVEN[case]
    change(tmp_path)
    refused(SevenScenesData(path=str(tmp_path)), *words)


@pytest.mark.parametrize("content", ["1 2 3\n", "0 0 1 1 1 1\n", "nan 1 1 1 1 1\n", "a b c d e f\n"])
def test_bad_own_calibration(tmp_path: Path, content: str) -> None:
    made_rgbd.seven_scenes(tmp_path)
    (tmp_path / "camera.txt").write_text(content)
    refused(SevenScenesData(path=str(tmp_path)), "camera.txt")


HEAD = len(made_rgbd.sens_header())
NO_SIZES = made_rgbd.sens_header()[: HEAD - 28]
BAD_SENS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["version", "ends"]),
    "text": (b"this is no recording at all", ["version"]),
    "version": (made_rgbd.sens_header(version=3), ["version", "3"]),
    "name longer than the file": (struct.pack("<IQ", 4, 4000), ["sensor name", "left"]),
    "name absurd": (struct.pack("<IQ", 4, 2**63), ["sensor name", "4096"]),
    "cut in the header": (made_rgbd.sens_header()[:100], ["extrinsic_color", "ends"]),
    "color raw": (made_rgbd.sens_header(color=0), ["color compression", "JPEG"]),
    "depth occi": (made_rgbd.sens_header(depth=2), ["depth compression"]),
    "shift zero": (made_rgbd.sens_header(shift=0.0), ["depth shift"]),
    "shift NaN": (made_rgbd.sens_header(shift=float("nan")), ["depth shift"]),
    "no frames": (made_rgbd.sens_header(count=0), ["number of frames"]),
    "frames promised": (made_rgbd.sens_header(count=10), ["number of frames", "room"]),
    "frames absurd": (made_rgbd.sens_header(count=2**63), ["number of frames"]),
    "color longer than the file": (
        made_rgbd.sens_header(count=1) + bytes(64) + struct.pack("<QQQQ", 0, 0, 2**40, 1), ["frame 0 color"],
    ),
    "depth longer than the file": (
        made_rgbd.sens_header(count=1) + bytes(64) + struct.pack("<QQQQ", 0, 0, 0, 2**63), ["frame 0 depth"],
    ),
    "size zero": (NO_SIZES + struct.pack("<IIIIfQ", 0, 1, 1, 1, 1000, 1), ["size"]),
    "size absurd": (NO_SIZES + struct.pack("<IIIIfQ", 1, 1, 2**31, 2**31, 1000, 1), ["size"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SENS)
def test_bad_sens(tmp_path: Path, case: str) -> None:
    content, words = BAD_SENS[case]
    (tmp_path / "x.sens").write_bytes(content)
    refused(ScannetData(path=str(tmp_path / "x.sens")), "x.sens", *words)


def one_depth(depth: bytes) -> bytes:
    """Five frames, of which the third has other depth bytes."""
    good = zlib.compress(made_rgbd.millimeters(np.ones(made_rgbd.DEPTH_SIZE[::-1])).astype("<u2").tobytes())
    out = io.BytesIO()
    made_rgbd.color_picture(0).save(out, "JPEG")
    poses = made_rgbd.room_poses(5)
    frames = (made_rgbd.sens_frame(p, out.getvalue(), depth if i == 2 else good) for i, p in enumerate(poses))
    return made_rgbd.sens_header(count=5) + b"".join(frames)


BAD_DEPTHS = {
    "not deflated": b"\x00" * 640,
    "cut": zlib.compress(b"\x01\x02" * 320)[:-8],
    "too short": zlib.compress(b"\x01\x02" * 319),
    "too long": zlib.compress(b"\x01\x02" * 321),
    "bomb": zlib.compress(bytes(200_000_000), 9),
    "nothing": zlib.compress(b""),
}


@pytest.mark.parametrize("case", BAD_DEPTHS)
def test_bad_depths_in_a_sens_file(tmp_path: Path, case: str) -> None:
    (tmp_path / "x.sens").write_bytes(one_depth(BAD_DEPTHS[case]))
    tracemalloc.start()
    refused(ScannetData(path=str(tmp_path / "x.sens")), "frame 2 depth", "640" if case != "not deflated" else "damaged")
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


def test_a_link_and_two_recordings(tmp_path: Path) -> None:
    """Two .sens files in a folder are no choice to make; the folder is then not taken for a recording."""
    made_rgbd.sens(tmp_path)
    os.rename(tmp_path / "export", tmp_path / "other")
    AutoData(path=str(tmp_path)).resolve()
    os.link(tmp_path / "scene.sens", tmp_path / "again.sens")
    refused(AutoData(path=str(tmp_path)), "not recognized")


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        ("scannet", "color"), ("scannet", "depth/3.png"), ("scannet", "pose/3.txt"), ("scannet", "intrinsic"),
        ("scannet", "intrinsic/extrinsic_depth.txt"), ("sens", "scene.sens"),
        ("seven", "seq-01"), ("seven", "seq-02/frame-000001.color.png"), ("seven", "seq-01/frame-000001.pose.txt"),
        ("seven", "TestSplit.txt"), ("seven", "camera.txt"), ("seven", "depth-intrinsics.txt"),
    ],
)  # fmt: skip
def test_links_that_lead_out(tmp_path: Path, kind: str, link: str) -> None:
    folder, secret = tmp_path / "data", tmp_path / "secret"
    if kind == "sens":
        made_rgbd.sens(tmp_path)
        folder.mkdir()
        os.rename(tmp_path / "scene.sens", folder / "scene.sens")
    else:
        (made_rgbd.scannet if kind == "scannet" else made_rgbd.seven_scenes)(folder)
    if (folder / link).exists():
        os.rename(folder / link, secret)
    else:
        secret.write_text("20 0 10\n0 21 8\n0 0 1\n" if "depth" in link else "32 24 30 30 15.5 11.5")
    os.symlink(secret, folder / link)
    config: type[DataConfig] = SevenScenesData if kind == "seven" else ScannetData
    refused(config(path=str(folder)), "allow_outside")
    assert len(config(path=str(folder), allow_outside=True).load().names) >= 10


def outcome(config: DataConfig) -> Scene | None:
    """The scene, or None for bad input; any other exception is a fault of the reader."""
    try:
        return config.load()
    except InputError as error:
        assert "\n" not in str(error)
        return None


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_rgbd.sens(tmp_path_factory.mktemp("sens"), count=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4), st.integers(0, 2**16))
def test_sens_with_other_bytes(recording: Path, changes: list[tuple[int, int]], cut: int) -> None:
    """Bytes changed, mostly in the header and the first frames, and sometimes the end cut off."""
    content = bytearray(recording.read_bytes())
    for place, value in changes:
        content[(place * place) % len(content) if place % 2 else place % (HEAD + 100)] = value
    if cut % 3 == 0:
        content = content[: cut % len(content)]
    other = recording.with_name("other") / "x.sens"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(content)
    scene = outcome(ScannetData(path=str(other)))
    if not changes and cut % 3:
        assert scene is not None


NUMBERS = st.one_of(st.floats(-2, 2), st.sampled_from(["nan", "-inf", "1e999", "", "x", "1_0", "0x1", "#"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NUMBERS, min_size=16, max_size=17), st.sampled_from(["pose/2.txt", "intrinsic/extrinsic_depth.txt"]))
def test_folder_with_other_numbers(tmp_path: Path, words: list[float | str], name: str) -> None:
    if not (tmp_path / "pose").is_dir():
        made_rgbd.scannet(tmp_path, count=6)
    before = (tmp_path / name).read_text()
    rows = [" ".join(map(str, words[i : i + 4])) for i in range(0, len(words), 4)]
    (tmp_path / name).write_text("\n".join(rows))
    outcome(ScannetData(path=str(tmp_path)))
    (tmp_path / name).write_text(before)
    assert outcome(ScannetData(path=str(tmp_path))) is not None


SEVEN_TEXTS = ["TrainSplit.txt", "TestSplit.txt", "camera.txt", "depth-intrinsics.txt", "seq-01/frame-000001.pose.txt"]
LINES = st.lists(st.lists(NUMBERS, max_size=7).map(lambda words: " ".join(map(str, words))), max_size=5)
SPLITS = st.lists(st.sampled_from(["sequence1", "sequence2", " Sequence 2 ", "sequence99", "", "seq-01"]), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEVEN_TEXTS), st.one_of(st.binary(max_size=80), SPLITS, LINES))
def test_seven_scenes_with_other_texts(tmp_path: Path, name: str, content: bytes | list[str]) -> None:
    if not (tmp_path / "seq-01").is_dir():
        made_rgbd.seven_scenes(tmp_path, (4, 2))
    path = tmp_path / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content if isinstance(content, bytes) else "\n".join(content).encode())
    outcome(SevenScenesData(path=str(tmp_path)))
    path.unlink() if before is None else path.write_bytes(before)
    assert outcome(SevenScenesData(path=str(tmp_path))) is not None
