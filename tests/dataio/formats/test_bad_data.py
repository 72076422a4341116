"""Data that are wrong: one line that names the file and the key, or a defined conversion; never silence."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataio import files
from dataio.formats.dtu import DtuData
from dataio.formats.transforms import TransformsData
from dataio.pictures import images
from dataio.recognition import AutoData
from dataio.scene import DataConfig
from tests.support import made_data
from utils.errors import InputError


def refused(config: DataConfig, *words: str) -> str:
    """The one line that loading fails with; it holds all the words."""
    with pytest.raises(InputError) as caught:
        config.load()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600 and line.isprintable()
    for word in words:
        assert word in line, (word, line)
    return line


def changed(folder: Path, change) -> TransformsData:
    """A transforms set with one change to its content."""
    content = made_data.transforms(folder)
    change(content)
    made_data.write(folder / "transforms.json", content)
    return TransformsData(path=str(folder))


def every(key, value):
    def change(content):
        for frame in content["frames"]:
            frame[key] = value(frame[key]) if callable(value) else value

    return change


def entry(row, column, value):
    def change(content):
        for frame in content["frames"]:
            frame["transform_matrix"][row][column] = value

    return change


def path(name):
    return lambda content: content["frames"][0].update(file_path=name)


def scaled(matrix):
    return (np.array(matrix) * [[2, 2, 2, 1]]).tolist()


def mirrored(matrix):
    return (np.array(matrix) * [[-1, 1, 1, 1]]).tolist()


MIRROR = np.eye(4)[[1, 0, 2]].tolist()
BAD_TRANSFORMS = {
    "no frames": (lambda c: c.update(frames=[]), ["frames", "no images"]),
    "frames missing": (lambda c: c.pop("frames"), ["frames", "required"]),
    "frames not a list": (lambda c: c.update(frames={"a": 1}), ["frames", "list"]),
    "pose missing": (lambda c: c["frames"][3].pop("transform_matrix"), ["frames[3].transform_matrix"]),
    "pose too small": (lambda c: c["frames"][3].update(transform_matrix=[[1, 0], [0, 1]]), ["frames[3]"]),
    "pose of words": (lambda c: c["frames"][3].update(transform_matrix="no"), ["frames[3].transform_matrix"]),
    "pose with null": (entry(0, 0, None), ["frames[0].transform_matrix"]),
    "pose NaN": (entry(0, 3, float("nan")), ["transform_matrix", "NaN", "10 of 10"]),
    "pose infinite": (entry(1, 1, float("inf")), ["transform_matrix", "infinity"]),
    "pose scaled": (every("transform_matrix", scaled), ["transform_matrix", "orthonormal"]),
    "pose mirrored": (every("transform_matrix", mirrored), ["transform_matrix", "mirrored"]),
    "poses equal": (lambda c: every("transform_matrix", c["frames"][0]["transform_matrix"])(c), ["equal"]),
    "focal zero": (lambda c: c.update(fl_x=0), ["focal length"]),
    "focal negative": (lambda c: c.update(fl_y=-30), ["focal length"]),
    "focal NaN": (lambda c: c.update(fl_x=float("nan")), ["focal length"]),
    "focal missing": (lambda c: c.pop("fl_x"), ["fl_x", "missing"]),
    "angle flat": (lambda c: c.update(camera_angle_x=3.5), ["camera_angle_x"]),
    "principal point": (lambda c: c.update(cx=-3), ["principal point"]),
    "width zero": (lambda c: c.update(w=0), ["w - "]),
    "width endless": (lambda c: c.update(w=10**399), ["w - ", "finite"]),
    "focal endless": (lambda c: c.update(fl_x=10**399), ["focal length"]),
    "width huge": (lambda c: c.update(w=2**60), ["24 x 16"]),
    "size of others": (lambda c: c.update(w=48, h=64), ["24 x 16 - expected 48 x 64"]),
    "unknown model": (lambda c: c.update(camera_model="EQUIRECTANGULAR"), ["camera_model", "OPENCV"]),
    "file twice": (lambda c: every("file_path", "images/000.png")(c), ["images/000.png", "twice"]),
    "file missing": (lambda c: every("file_path", "images/x.png")(c), ["twice"]),
    "path up": (path("../../etc/passwd"), ["file_path", "allow_outside"]),
    "path absolute": (path("/etc/passwd"), ["file_path", "allow_outside"]),
    "path windows": (path("..\\..\\x.png"), ["file_path", "allow_outside"]),
    "path home": (path("~/x.png"), ["file_path", "allow_outside"]),
    "path NUL": (path("a\0b.png"), ["file_path"]),
    "path URL": (path("http://x/y.png"), ["file_path"]),
    "path empty": (path(""), ["file_path"]),
    "path codes": (path("../\x1b[31m.png"), ["file_path"]),
    "path long": (path("x" * 5000), ["file_path"]),
    "transform mirrored": (lambda c: c.update(applied_transform=MIRROR), ["applied_transform", "mirrored"]),
    "transform zero": (lambda c: c.update(applied_transform=[[0] * 4] * 3), ["applied_transform"]),
    "scale zero": (lambda c: c.update(applied_scale=0), ["applied_scale"]),
    "mask missing": (lambda c: every("mask_path", "masks/x.png")(add_key(c, "mask_path")), ["masks/x.png"]),
    "lens folds": (lambda c: c.update(k1=-9.0), ["distortion", "folds"]),
    "lens short": (lambda c: c.update(distortion_params=[0.1, 0.2]), ["distortion_params"]),
}  # fmt: skip


def add_key(content, key):
    for frame in content["frames"]:
        frame[key] = ""
    return content


@pytest.mark.parametrize("case", BAD_TRANSFORMS)
def test_bad_transforms(tmp_path, case):
    change, words = BAD_TRANSFORMS[case]
    refused(changed(tmp_path, change), "transforms.json" if "mask" not in case else "masks", *words)


BAD_TEXT = {
    "broken": ('{"frames": [\n  {"file_path": }]}', ["transforms.json:2:17"]),
    "empty": ("", ["transforms.json:1:1"]),
    "a list": ("[1, 2]", ["top"]),
    "twice": ('{"w": 1, "frames": [], "w": 2}', [": w - ", "twice"]),
    "deep": ("[" * 200_000, ["nested too deeply"]),
    "long number": ('{"w": ' + "9" * 10_000 + "}", ["w - ", "finite"]),
    "nothing": ("null", ["top"]),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_json(tmp_path, case):
    text, words = BAD_TEXT[case]
    (tmp_path / "transforms.json").write_text(text)
    refused(TransformsData(path=str(tmp_path)), "transforms.json", *words)


def test_json_that_is_no_text_or_too_much(tmp_path, monkeypatch):
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00a")
    refused(TransformsData(path=str(tmp_path)), "UTF-8")
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 3)
    refused(TransformsData(path=str(tmp_path)), "4 bytes")


def test_no_folder_no_format_no_path(tmp_path):
    refused(AutoData(), "data.path")
    refused(AutoData(path=str(tmp_path / "none")), "data.path", "no such file")
    refused(AutoData(path=str(tmp_path)), "not recognized", "transforms")
    refused(TransformsData(path=str(tmp_path)), "transforms_train.json")
    refused(DtuData(path=str(tmp_path)), "cameras_sphere.npz")
    (tmp_path / "notes.json").mkdir()
    refused(AutoData(path=str(tmp_path / "notes.json")), "not recognized")


def test_most_images_missing(tmp_path):
    made_data.transforms(tmp_path)
    for view in range(6):
        (tmp_path / f"images/{view:03d}.png").unlink()
    refused(TransformsData(path=str(tmp_path)), "transforms.json", "6 of 10", "000.png", "50%")


def test_a_link_out_of_the_folder(tmp_path):
    secret = tmp_path / "secret.png"
    made_data.picture(secret)
    config = changed(tmp_path / "data", lambda c: None)
    (tmp_path / "data/images/003.png").unlink()
    os.symlink(secret, tmp_path / "data/images/003.png")
    refused(config, "frames[3].file_path", "allow_outside")
    assert len(TransformsData(path=config.path, allow_outside=True).load().names) == 10


def bitmap(kind: str, mode="RGB", size=(24, 16)) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(out, kind)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def animation() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (24, 16), color) for color in ("red", "blue")]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    return out.getvalue()


BAD_IMAGES = {
    "empty": b"",
    "text": b"not an image, but long enough to look at",
    "half a PNG": bitmap("PNG")[: len(bitmap("PNG")) // 2],
    "half a JPEG": bitmap("JPEG")[: len(bitmap("JPEG")) // 2],
    "JPEG short by two bytes": bitmap("JPEG")[:-40],
    "GIF": bitmap("GIF", "L"),
    "bomb": png_header(100_000, 100_000),
    "just too large": png_header(20_000, 10_001),
    "header only": png_header(24, 16),
    "animation": animation(),
    "float TIFF": bitmap("TIFF", "F"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(tmp_path, case):
    config = changed(tmp_path, lambda c: None)
    (tmp_path / "images/004.png").write_bytes(BAD_IMAGES[case])
    with pytest.warns() if case == "just too large" else pytest.MonkeyPatch.context():
        refused(config, "004.png")


@pytest.mark.parametrize("name", ["images/004.png"])
def test_an_unreadable_image(tmp_path, name):
    config = changed(tmp_path, lambda c: None)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    config.load()  # a folder is no file: left out as missing


GOOD_IMAGES = {
    "gray": ("L", "PNG"), "palette": ("P", "PNG"), "gray alpha": ("LA", "PNG"), "CMYK": ("CMYK", "JPEG"),
    "bits": ("1", "PNG"), "16 bits": ("I;16", "PNG"), "WebP": ("RGB", "WEBP"), "TIFF": ("RGBA", "TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD_IMAGES)
def test_conversions(tmp_path, case):
    mode, kind = GOOD_IMAGES[case]
    ramp = np.tile(np.linspace(0, 255, 24).astype(np.uint8), (16, 1))
    picture = Image.fromarray(ramp)
    wide = Image.fromarray(ramp.astype(np.uint16) * 257)
    (wide if mode == "I;16" else picture.convert(mode)).save(tmp_path / "x", kind)
    color, alpha = images.read_image(tmp_path / "x")
    assert color.shape == (16, 24, 3) and color.dtype == np.uint8
    assert (alpha is not None) == (mode in ("LA", "RGBA"))
    if mode != "1":
        assert np.abs(color[..., 1].astype(int) - ramp).max() <= (4 if kind in ("JPEG", "WEBP") else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_never_turns_pixels(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert images.image_size(tmp_path / "x.png") == (24, 16)
    assert np.array_equal(images.read_image(tmp_path / "x.png")[0], pixels)


def test_masks_and_depths_of_another_size(tmp_path):
    content = made_data.transforms(tmp_path)
    for frame in content["frames"]:
        frame["mask_path"] = "m.png"
    made_data.mask(tmp_path / "m.png", (12, 8))
    made_data.write(tmp_path / "transforms.json", content)
    refused(TransformsData(path=str(tmp_path)), "m.png", "12 x 8", "24 x 16")
    for frame in content["frames"]:
        frame["depth_file_path"] = "d.npy"
        del frame["mask_path"]
    made_data.write(tmp_path / "transforms.json", content)
    np.save(tmp_path / "d.npy", np.ones((8, 12), dtype=np.float32))
    refused(TransformsData(path=str(tmp_path)), "d.npy", "12 x 8")
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(TransformsData(path=str(tmp_path)), "d.npy")
    made_data.picture(tmp_path / "d.png")
    for frame in content["frames"]:
        frame["depth_file_path"] = "d.png"
    made_data.write(tmp_path / "transforms.json", content)
    refused(TransformsData(path=str(tmp_path)), "d.png", "16 bits")


def test_a_broken_point_file_and_a_missing_one(tmp_path, capsys):
    config = changed(tmp_path, lambda c: c.update(ply_file_path="p.ply"))
    assert config.load().points is None and "p.ply" in capsys.readouterr().err
    (tmp_path / "p.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\nend_header\n")
    refused(config, "p.ply")


NAN = np.full((4, 4), np.nan)
BAD_DTU: dict[str, tuple[dict[str, Any], list[str]]] = {
    "pose NaN": ({f"world_mat_{i}": NAN for i in range(10)}, ["world_mat", "NaN"]),
    "singular": ({"world_mat_3": np.zeros((4, 4))}, ["world_mat_3", "singular"]),
    "missing": ({"world_mat_3": None}, ["world_mat_3", "missing"]),
    "wrong shape": ({"world_mat_3": np.zeros((2, 2))}, ["world_mat_3", "(2, 2)"]),
    "whole numbers": ({"world_mat_3": np.zeros((4, 4), dtype=int)}, ["world_mat_3", "int"]),
    "pickle": ({"world_mat_3": np.array([{"a": 1}], dtype=object)}, ["world_mat_3"]),
    "large": ({"world_mat_3": np.zeros((600, 600))}, ["world_mat_3", "bytes"]),
    "skew": ({"world_mat_3": np.eye(4) + np.eye(4, k=1)}, ["world_mat_3", "skew"]),
    "scale uneven": ({"scale_mat_0": np.diag([1.0, 2, 1, 1])}, ["scale_mat_0"]),
    "scale NaN": ({"scale_mat_0": NAN}, ["scale_mat_0"]),
    "scale negative": ({"scale_mat_0": -np.eye(4)}, ["scale_mat_0"]),
    "scale differs": ({"scale_mat_4": np.diag([3.0, 3, 3, 1])}, ["scale_mat"]),
    "all equal": (
        {f"world_mat_{i}": np.diag([30.0, 30, 1, 1]) + 8 * np.eye(4, k=2) for i in range(10)},
        ["world_mat"],
    ),
}


@pytest.mark.parametrize("case", BAD_DTU)
def test_bad_dtu(tmp_path, case):
    changes, words = BAD_DTU[case]
    made_data.dtu(tmp_path, **changes)
    refused(DtuData(path=str(tmp_path)), "cameras_sphere.npz", *words)


def test_one_bad_dtu_pose_is_left_out(tmp_path, capsys):
    made_data.dtu(tmp_path, world_mat_2=NAN)
    assert len(DtuData(path=str(tmp_path)).load().names) == 9
    assert "1 of 10" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing", b"\x80\x04 a pickle"])
def test_a_broken_npz(tmp_path, content):
    made_data.dtu(tmp_path)
    (tmp_path / "cameras_sphere.npz").write_bytes(content)
    refused(DtuData(path=str(tmp_path)), "cameras_sphere.npz")


def test_an_npz_bomb_and_a_lying_header(tmp_path):
    made_data.dtu(tmp_path)
    path = tmp_path / "cameras_sphere.npz"
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("world_mat_99.npy", bytes(50_000_000))
    refused(DtuData(path=str(tmp_path)), "world_mat_99", "bytes")
    made_data.dtu(tmp_path)
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 4)}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("world_mat_99.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.encode())
    refused(DtuData(path=str(tmp_path)), "world_mat_99")


def test_dtu_folders(tmp_path):
    made_data.dtu(tmp_path)
    (tmp_path / "mask/003.png").unlink()
    refused(DtuData(path=str(tmp_path)), "mask", "number 3")
    made_data.mask(tmp_path / "mask/003.png", (12, 8))
    refused(DtuData(path=str(tmp_path)), "003.png", "12 x 8")
    made_data.picture(tmp_path / "image/3.png")
    refused(DtuData(path=str(tmp_path)), "image", "same number")
    for path in (tmp_path / "image").iterdir():
        path.unlink()
    refused(DtuData(path=str(tmp_path)), "image", "no images")
    (tmp_path / "image").rmdir()
    refused(DtuData(path=str(tmp_path)), "image", "no such folder")
    refused(DtuData(path=str(tmp_path), cameras_file="other.npz"), "other.npz")


KEYS = [
    "fl_x",
    "cx",
    "w",
    "k1",
    "frames",
    "camera_model",
    "applied_transform",
    "applied_scale",
    "train_filenames",
]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.lists(st.floats(width=32), max_size=4),
    st.lists(st.lists(st.floats(width=16), max_size=4), max_size=4),
    st.dictionaries(st.sampled_from(KEYS), st.integers(), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return folder, made_data.transforms(folder, 6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.dictionaries(st.sampled_from(KEYS), ODD, max_size=2),
    st.dictionaries(
        st.sampled_from(["file_path", "transform_matrix", "mask_path", "fl_x", "k2"]), ODD, max_size=1
    ),
)
def test_mutated_transforms_load_or_are_refused(sound, top, first):
    folder, content = sound
    frames = [dict(frame) for frame in content["frames"]]
    frames[0].update(first)
    (folder / "mutant.json").write_text(json.dumps({**content, "frames": frames, **top}))
    try:
        TransformsData(path=str(folder / "mutant.json")).load()
    except InputError as error:
        assert "\n" not in str(error)
