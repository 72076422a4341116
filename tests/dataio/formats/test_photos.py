"""Raw photographs up to and after pycolmap: what is compared, what is copied, what is said, what is kept."""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dataio.alignment import fit_similarity
from dataio.formats import photos
from dataio.formats.photos import PhotosData, prepare, upright
from dataio.formats.transforms import TransformsData
from dataio.pictures.exif import ORIENTATION, Exif, Position, read_exif
from dataio.pictures.images import image_size, read_image
from dataio.recognition import AutoData
from dataio.sfm import structure_from_motion
from dataio.sfm.structure_from_motion import Effort, Limits, camera_groups, choose_pairs, find_models
from tests.support import made_data, made_models
from tests.support.made_data import picture
from utils.errors import InputError


def here(latitude: float, longitude: float) -> Exif:
    return Exif(position=Position(latitude, longitude, None))


def test_few_photographs_are_all_compared():
    assert len(choose_pairs([Exif()] * 60, "auto")) == 60 * 59 // 2


def test_many_photographs_are_compared_with_the_next_and_for_loops():
    pairs = choose_pairs([Exif()] * 100, "auto")
    assert all((i, j) in pairs for i in range(90) for j in range(i + 1, i + 11))
    assert {(0, 16), (0, 32), (0, 64), (35, 99)} <= pairs and (0, 50) not in pairs and len(pairs) < 1300
    assert all(0 <= i < j < 100 for i, j in pairs)


def test_photographs_that_know_their_place_are_compared_with_neighbors():
    """A grid of ten rows, flown to and fro: the neighbor in the next row is far in the order of names."""
    places = [(row, column if row % 2 else 9 - column) for row in range(10) for column in range(10)]
    exifs = [here(47 + 1e-4 * row, 8 + 1.5e-4 * column) for row, column in places]
    pairs = choose_pairs([*exifs, Exif()], "auto")
    number = {place: i for i, place in enumerate(places)}
    assert all(tuple(sorted((number[r, c], number[r + 1, c]))) in pairs for r in range(9) for c in range(10))
    assert (99, 100) in pairs and (0, 99) not in pairs and len(pairs) < 2200


def test_neighbors_want_places():
    with pytest.raises(InputError, match="do not say where"):
        choose_pairs([Exif()] * 5, "gps")


def test_photographs_of_one_lens_share_a_camera():
    lens = Exif(camera="A", focal=800.4, focal_millimeters=4.3)
    groups = camera_groups("abcd", [lens, Exif(), lens, lens], [(100, 75)] * 3 + [(75, 100)], "OPENCV")
    assert [group.names for group in groups] == [["a", "c"], ["b"], ["d"]]
    assert groups[0].parameters == [800.4, 800.4, 50.0, 37.5, 0, 0, 0, 0] and groups[1].parameters == []
    assert camera_groups("a", [lens], [(100, 75)], "SIMPLE_RADIAL")[0].parameters == [800.4, 50.0, 37.5, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_copies_are_upright(orientation: int, suffix: str, tmp_path: Path):
    """As the standard says, for which Pillow's own transposition stands."""
    picture_at = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    blocks = np.kron(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10, np.ones((16, 16), np.uint8))
    Image.fromarray(np.stack([blocks] * 3, axis=-1)).save(picture_at, exif=exif, quality=95)
    before = picture_at.read_bytes()
    copy = tmp_path / "out" / picture_at.name
    upright(picture_at, read_exif(picture_at), copy)
    with Image.open(picture_at) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.abs(read_image(copy)[0].astype(int) - expected).max() <= 6
    assert read_exif(copy).orientation == 1 and picture_at.read_bytes() == before


def make(folder: Path, count: int = 4) -> Path:
    for view in range(count):
        picture(folder / f"{view}.png", view)
    return folder


def test_a_folder_of_nothing_but_photographs_is_recognized(tmp_path: Path):
    make(tmp_path / "a")
    (tmp_path / "a/.DS_Store").touch()
    assert isinstance(AutoData(path=str(tmp_path / "a")).resolve(), PhotosData)
    (tmp_path / "a/notes.txt").touch()
    assert not PhotosData.recognizes(tmp_path / "a")
    assert not PhotosData.recognizes(make(tmp_path / "two", 2))


def test_photographs_in_a_folder_called_images_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make(tmp_path / "images")
    (tmp_path / "notes.txt").touch()
    found = AutoData(path=str(tmp_path)).resolve()
    assert isinstance(found, PhotosData) and found.folder() == tmp_path / "images"
    assert PhotosData(path=str(tmp_path / "images")).folder() == tmp_path / "images"
    made_data.transforms(tmp_path)  # somebody knows the poses
    assert isinstance(AutoData(path=str(tmp_path)).resolve(), TransformsData)
    assert "also possible" not in capsys.readouterr().err
    (tmp_path / "images/notes.txt").touch()
    assert not PhotosData.recognizes(tmp_path)


def test_prepared_needs_no_type(tmp_path: Path):
    prepared = str(tmp_path / "new")
    found = AutoData(path=str(make(tmp_path / "photos")), prepared=prepared).resolve()
    assert isinstance(found, PhotosData) and found.prepared == prepared
    made_data.transforms(tmp_path / "posed")
    with pytest.raises(InputError, match="data.prepared: .* was read as transforms, .* expected raw photographs"):
        AutoData(path=str(tmp_path / "posed"), prepared=prepared).resolve()


def test_without_pycolmap_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setattr(structure_from_motion, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -r requirements-prepare\.txt"):
        PhotosData(path=str(make(tmp_path / "in")), prepared=str(tmp_path / "out")).parse()
    assert not (tmp_path / "out/images").exists()


class Finder:
    """Stands for pycolmap: writes models with so many photographs each."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts, self.calls = counts, 0
        self.write: Callable[..., list[Path]] | None = None

    def __call__(self, images: Path, groups, pairs, *, work: Path, **options) -> list[Path]:
        self.calls += 1
        if self.write is not None:
            return self.write(images, groups, pairs, work=work, **options)
        names = [name for group in groups for name in group.names]
        folders = []
        for number, count in enumerate(self.counts):
            folder = work / "models" / str(number)
            folder.mkdir(parents=True)
            (folder / "cameras.txt").write_text("1 PINHOLE 24 16 30 30 12 8\n")
            lines = [f"{i + 1} 1 0 0 0 {i} 0 0 1 {name}\n\n" for i, name in enumerate(names[:count])]
            (folder / "images.txt").write_text("".join(lines))
            (folder / "points3D.txt").write_text("")
            folders.append(folder)
        return folders


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> Finder:
    finder = Finder([10])
    monkeypatch.setattr(photos, "find_models", finder)
    monkeypatch.setattr(photos, "need_pycolmap", lambda: None)
    return finder


def test_poses_are_found_once(tmp_path: Path, finder: Finder, capsys: pytest.CaptureFixture[str]):
    source = make(tmp_path / "in", 10)
    config = AutoData(path=str(source), cache=str(tmp_path / "cache")).resolve()
    for _ in range(2):
        assert len(config.load().names) == 10
        assert "10 of 10 registered" in capsys.readouterr().err
    assert finder.calls == 1
    assert "10 photographs" in AutoData(path=str(source), cache=str(tmp_path / "other")).check()
    assert "10 views" in config.check()  # found before
    assert finder.calls == 1  # a check does not look for poses
    picture(source / "3.png", 77, size=(24, 16))
    config.parse()
    assert finder.calls == 2  # a photograph changed
    assert sorted(path.name for path in source.iterdir()) == [f"{i}.png" for i in range(10)]


def test_the_largest_of_several_models_and_advice(tmp_path: Path, finder: Finder, capsys: pytest.CaptureFixture[str]):
    finder.counts = [5, 3]
    config = PhotosData(path=str(make(tmp_path / "in", 10)), prepared=str(tmp_path / "out"))
    assert len(config.parse().names) == 5
    said = capsys.readouterr().err
    assert "5 of 10 registered" in said and "2 models that were not joined, of 5, 3 photographs" in said
    assert all(f"{number}. " in said for number in (1, 2, 3))


def test_nothing_registered_is_an_error_with_advice(tmp_path: Path, finder: Finder):
    finder.counts = []
    with pytest.raises(InputError, match=r"(?s)0 of 4 registered.*1\. .*2\. .*3\. "):
        PhotosData(path=str(make(tmp_path / "in")), prepared=str(tmp_path / "out")).parse()


def test_folders_that_cannot_be_used(tmp_path: Path, finder: Finder):
    source = make(tmp_path / "in")
    with pytest.raises(InputError, match="lies in the folder of the photographs"):
        prepare(PhotosData(path=str(source)), source / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        prepare(PhotosData(path=str(source)), tmp_path / "full")
    assert (tmp_path / "full/thesis.tex").read_text() == "x"
    other = make(tmp_path / "others" / "images")
    with pytest.raises(InputError, match="not empty"):
        prepare(PhotosData(path=str(source)), other.parent)
    assert len(list(other.iterdir())) == 4
    with pytest.raises(InputError, match="got 2 photographs"):
        prepare(PhotosData(path=str(make(tmp_path / "two", 2))), tmp_path / "out")
    make(tmp_path / "odd")
    picture(tmp_path / "odd" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(InputError, match="expected names in UTF-8"):
        prepare(PhotosData(path=str(tmp_path / "odd")), tmp_path / "out")


def test_photographs_in_folders_are_found_where_there_are_no_others(
    tmp_path: Path, finder: Finder, capsys: pytest.CaptureFixture[str]
):
    """Each keeps its folder, in the order of the whole names; two of one name are two, and turned ones are upright."""
    made = {"b/1.png": 0, "a/1.png": 1, "a b/1.png": 2, ".thumbnails/1.png": 3, "@eaDir/1.png": 4, "__MACOSX/1.png": 5}
    for name, view in made.items():
        picture(tmp_path / "in" / name, view)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (24, 16)).save(tmp_path / "in/b/2.png", exif=exif)
    views = PhotosData(path=str(tmp_path / "in"), prepared=str(tmp_path / "out")).parse()
    assert sorted(views.names) == ["a b/1.png", "a/1.png", "b/1.png", "b/2.png"]
    assert photos.read_source(tmp_path / "in").names == sorted(views.names)
    for name in ("a/1.png", "b/1.png"):
        assert (tmp_path / "out/images" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    assert image_size(tmp_path / "out/images/b/2.png") == (16, 24)
    assert "not read" not in capsys.readouterr().err
    make(tmp_path / "in", 3)
    assert photos.read_source(tmp_path / "in").names == ["0.png", "1.png", "2.png"]
    assert f"4 pictures in folders of it are not read, the first in {tmp_path}/in/a b" in capsys.readouterr().err


def test_a_photograph_that_cannot_be_read_is_left_out_before_poses_are_found(
    tmp_path: Path, finder: Finder, capsys: pytest.CaptureFixture[str]
):
    """One that was cut short, whose header is sound, and one that is empty; more than a fifth are refused."""
    source = make(tmp_path / "in", 12)
    short = (source / "3.png").read_bytes()
    (source / "3.png").write_bytes(short[: len(short) // 2])
    (source / "4.png").write_bytes(b"")
    assert len(PhotosData(path=str(source), prepared=str(tmp_path / "out")).parse().names) == 10
    said = capsys.readouterr().err
    assert "1 of 12 photographs cannot be used, the first is 4.png: not a readable image" in said
    assert "1 of 11 photographs cannot be used, the first is 3.png: damaged image" in said
    assert not {"3.png", "4.png"} & {path.name for path in (tmp_path / "out/images").iterdir()}
    for name in "56":
        (source / f"{name}.png").write_bytes(b"")
    with pytest.raises(InputError, match="3 of 12 photographs cannot be used"):
        prepare(PhotosData(path=str(source)), tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "advice"), [("a.HEIC", "it has 1 HEIC .*heif-convert"), ("a.CR2", "it has 1 raw .*darktable")]
)
def test_photographs_of_a_kind_that_is_not_read_are_said(
    name: str, advice: str, tmp_path: Path, finder: Finder, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"got 0 photographs - expected 3 to 100000; {advice}"):
        photos.read_source(tmp_path / "in")
    assert len(photos.read_source(make(tmp_path / "in")).names) == 4
    assert re.search(advice, capsys.readouterr().err)


# What a camera, a phone, a person or another program may have called a photograph.
NAMES = ["Photo 12-12-2019, 11 50 00.png", "-rf.png", "a  b.png", "größe “1”.png", "it's $HOME;.png", "line\nbreak.png",
         "#1.png", "\ttab .png", "~me.png", "back\\slash.PNG", "猫.png", "a b.jpg"]  # fmt: skip


def test_any_name_reaches_the_poses_by_a_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The child's own lists hold plain names, and lead to the right pictures."""
    for view, name in enumerate(NAMES):
        picture(tmp_path / "in" / name, view)
    paths = photos.read_source(tmp_path / "in").paths
    names = [path.name for path in paths]
    groups = camera_groups(names, [Exif(camera="A"), *[Exif()] * (len(names) - 1)], [(24, 16)] * len(names), "PINHOLE")
    monkeypatch.setattr(structure_from_motion, "_watch", lambda *arguments: None)
    find_models(tmp_path / "in", groups, {(0, 1), (3, 11)}, work=tmp_path / "work", effort=EFFORT,
                limits=Limits(0, 1.0, 1))  # fmt: skip
    job = json.loads((tmp_path / "work/job.json").read_text("utf-8"))
    assert sorted(job["names"].values()) == sorted(NAMES) and [len(members) for members, _ in job["groups"]] == [1, 11]
    for plain, name in job["names"].items():
        assert (Path(job["images"]) / plain).read_bytes() == (tmp_path / "in" / name).read_bytes()
    assert [[job["names"][one] for one in pair] for pair in job["pairs"]] == [names[:2], [names[3], names[11]]]
    assert all(re.fullmatch(r"\d{6}\.[A-Za-z]{3}", plain) for plain in job["names"])


def test_any_name_is_read_from_what_was_found(tmp_path: Path, finder: Finder):
    """From a binary model, as COLMAP writes it: every picture is found and keeps its pose."""
    for view, name in enumerate(NAMES):
        picture(tmp_path / "in" / name, view)
    ring = made_models.ring(len(NAMES))
    ring.names = sorted(NAMES)

    def found(images: Path, groups, pairs, *, work: Path, **options) -> list[Path]:
        made_models.colmap_binary(ring, work, model="0")
        return [work / "0"]

    finder.write = found
    config = PhotosData(path=str(tmp_path / "in"), prepared=str(tmp_path / "out"))
    views = config.parse()
    assert views.names == sorted(NAMES) and "\n" not in config.model().check()
    np.testing.assert_allclose(views.camera_to_world, ring.poses, atol=1e-12)
    for image, name in zip(views.images, views.names, strict=True):
        assert isinstance(image, Path) and image.read_bytes() == (tmp_path / "in" / name).read_bytes()


EFFORT = Effort("exhaustive", "SIMPLE_RADIAL", 400, 500)


def run_child(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, **limits) -> list[Path]:
    worker = folder / "worker.py"
    worker.write_text(code)
    monkeypatch.setattr(structure_from_motion, "WORKER", worker)
    return find_models(
        folder,
        [],
        set(),
        work=folder / "work",
        effort=EFFORT,
        limits=Limits(**{"memory": 0, "minutes": 1.0, "threads": 1} | limits),
    )


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("import sys; sys.exit('no good')", "no good"),
        ("import os; os.abort()", "out of memory"),
        ("x = bytearray(2**62)", "out of memory"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**29,) * 2); x = bytearray(2**30)",
            "out of memory",
        ),
    ],
)
def test_a_child_that_fails_is_one_line(code: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=word):
        run_child(tmp_path, code, monkeypatch)


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="more than 0.01 minutes"):
        run_child(tmp_path, "import time; print('pairs 1 2', flush=True); time.sleep(60)", monkeypatch, minutes=0.01)


def test_noise_for_progress_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        r"import sys; sys.stdout.buffer.write(b'\xff\xfe a b\nfeatures x 3\nfeatures 3 3\n' + b'pairs 1 99999999999\n')"
    )
    assert run_child(tmp_path, code, monkeypatch) == []


def corner(folder: Path, count: int) -> np.ndarray:
    """Views of a floor and a wall with textures, drawn exactly; returns where they were taken, [count,3]."""
    random = np.random.default_rng(0)
    grain = [cv2.resize(random.random((n, n)), (800, 800), interpolation=cv2.INTER_CUBIC) for n in (10, 40, 160)]
    texture = np.clip(sum(grain) / 3 * 255, 0, 255).astype(np.uint8)
    lens = np.array([[340.0, 0, 200], [0, 340, 150], [0, 0, 1]])
    centers = np.array(
        [[2 * np.sin(a), -3.5 + 0.3 * np.cos(3 * a), 2 + 0.3 * a] for a in np.linspace(-0.6, 0.6, count)]
    )
    folder.mkdir()
    to_floor = np.array([[0.005, 0, -2], [0, -0.005, 0], [0, 0, 0], [0, 0, 1]])
    to_wall = np.array([[0.005, 0, -2], [0, 0, 0], [0, 0.005, 0], [0, 0, 1]])
    for view, center in enumerate(centers):
        forward = np.array([0, -0.3, 0.3]) - center
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        to_camera = np.stack([right, np.cross(forward, right), forward])
        projection = lens @ np.column_stack([to_camera, -to_camera @ center])
        drawn = np.zeros((300, 400), np.uint8)
        # Texels to a floor of 4 by 4 before the wall, and to the wall above its edge.
        for plane, pattern in ((to_floor, texture), (to_wall, texture.T)):
            warped = cv2.warpPerspective(pattern + 1, projection @ plane, (400, 300))
            drawn = np.maximum(drawn, warped)
        Image.fromarray(drawn).save(folder / f"{view}.png")
    return centers


def test_made_photographs_end_where_they_were_taken(tmp_path: Path):
    """The real thing, small, against the cameras that made the pictures, whatever their names."""
    pytest.importorskip("pycolmap")
    truth = corner(tmp_path / "in", 4)
    names = ["-1 a, b.png", "2\nü.png", "3  'c'.png", "4.png"]
    for view, name in enumerate(names):
        (tmp_path / f"in/{view}.png").rename(tmp_path / "in" / name)
    config = PhotosData(path=str(tmp_path / "in"), prepared=str(tmp_path / "out"), threads=1, features=800)
    views = config.parse()
    assert views.names == names
    centers = views.camera_to_world[:, :3, 3]
    fit = fit_similarity(centers, truth)
    error = np.linalg.norm(centers @ fit[:3, :3].T + fit[:3, 3] - truth, axis=1)
    assert error.max() < 0.03  # of about four
