"""Pictures decoded once into flat arrays, in memory or in a file: the same numbers from both."""

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dataio import scene as scenes
from dataio.batches import PixelSampler
from dataio.formats.transforms import TransformsData
from dataio.pictures import cache, images, pixels
from dataio.pictures.pictures import Pictures
from dataio.scene import Scene
from tests.support import made_data
from tests.support.made_photos import SIZE, Photos
from utils.errors import InputError, StorageError

SHAPES = np.array([[4, 3], [2, 5], [1, 1]])


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]


def test_pictures_are_views_of_one_array() -> None:
    given = pictures()
    flat = Pictures.of(given)
    assert len(flat) == 3 and all(map(np.array_equal, flat, given)) and Pictures.of(flat) is flat
    assert all(np.shares_memory(picture, flat.flat) for picture in flat)
    assert np.array_equal(flat[-1], given[2]) and len(flat[0:2]) == 2
    with pytest.raises(IndexError):
        flat[3]
    order = np.random.default_rng(1).permutation(len(flat.flat))
    assert np.array_equal(flat.take(order), np.concatenate([p.reshape(-1, 3) for p in given])[order])


def test_a_factor_multiplies_what_is_read() -> None:
    numbers = np.arange(23, dtype=np.uint16)
    twice = Pictures(numbers, SHAPES).times(0.5).times(3)
    assert twice[1].dtype == np.float32 and np.array_equal(twice[1].reshape(-1), 1.5 * numbers[12:22])
    assert np.array_equal(twice.take(np.array([22, 0])), [33, 0])


def rich_set(folder, count=10):
    """Pictures, masks and 16-bit depths."""
    content = made_data.transforms(folder, count)
    for view, frame in enumerate(content["frames"]):
        made_data.mask(folder / f"masks/{view}.png")
        depth = np.random.default_rng(view).integers(0, 60000, (made_data.HEIGHT, made_data.WIDTH))
        Image.fromarray(depth.astype(np.uint16)).save(folder / f"depth{view}.png")
        frame |= {"mask_path": f"masks/{view}.png", "depth_file_path": f"depth{view}.png"}
    made_data.write(folder / "transforms.json", content)


def load(folder, **keys) -> Scene:
    return TransformsData(path=str(folder), cache=str(folder / "cache"), **keys).load()


@pytest.mark.parametrize("downscale", [1, 2])
def test_the_scene_holds_views_of_what_the_files_say(tmp_path, downscale) -> None:
    rich_set(tmp_path)
    scene = load(tmp_path, downscale=downscale)
    size = made_data.WIDTH // downscale, made_data.HEIGHT // downscale
    assert isinstance(scene.depths, Pictures) and scene.depths.flat.dtype == np.uint16
    for view in range(10):
        color, _ = images.read_image(tmp_path / f"images/{view:03d}.png")
        mask = images.read_mask(tmp_path / f"masks/{view}.png")
        truth = images.resized(images.composited(color, mask, (1.0, 1.0, 1.0)), size)
        assert np.array_equal(scene.images[view], truth)
        assert scene.masks is not None and np.array_equal(scene.masks[view], images.resized(mask, size))
        depth = images.subsampled(images.read_depth(tmp_path / f"depth{view}.png", 1e-3), size)
        assert scene.depths is not None
        np.testing.assert_allclose(
            scene.depths[view] * np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])), depth, rtol=1e-5
        )
    with PixelSampler(scene, rays=8, seed=0) as sampler:  # nothing is copied for the stream
        assert sampler._store._color is scene.images


def test_memory_and_disk_give_the_same_stream(tmp_path, capsys) -> None:
    rich_set(tmp_path)
    scenes = [load(tmp_path), load(tmp_path, ram="0K"), load(tmp_path, ram="0K")]
    assert capsys.readouterr().err.count("caching them") == 1  # the second time it is there
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1
    batches = []
    for scene in scenes:
        with PixelSampler(scene, rays=100, seed=3) as sampler:
            batches.append([next(sampler) for _ in range(60)])
        assert all(map(np.array_equal, scene.images, scenes[0].images))
        assert scene.images[0].flags.writeable  # torch.from_numpy warns of others
    for ours in batches[1:]:
        for one, other in zip(batches[0], ours, strict=True):
            assert one.mask is not None and other.mask is not None and torch.equal(one.mask, other.mask)
            assert one.depth is not None and other.depth is not None and torch.equal(one.depth, other.depth)
            assert torch.equal(one.color, other.color) and torch.equal(one.rays.camera, other.rays.camera)


def test_the_cache_follows_the_pictures_and_the_options(tmp_path) -> None:
    made_data.transforms(tmp_path)
    folder = tmp_path / "cache"
    load(tmp_path, ram="0K")
    first = set(folder.glob("*.pixels"))
    half = load(tmp_path, ram="0K", downscale=2)
    assert half.images[0].shape == (8, 12, 3)
    assert first < set(folder.glob("*.pixels"))  # other options: both stay
    made_data.picture(tmp_path / "images/003.png", 77)
    scene = load(tmp_path, ram="0K")
    assert np.array_equal(scene.images[3], load(tmp_path).images[3])
    left = set(folder.glob("*.pixels"))
    assert len(left) == 2 and not first & left  # the file of the old pictures has gone
    old = time.time() - 90 * 86400
    for path in left:
        os.utime(path, (old, old))
    load(tmp_path, ram="0K", downscale=3)
    assert len(list(folder.glob("*.pixels"))) == 1


def test_half_a_cache_is_no_cache(tmp_path, monkeypatch) -> None:
    made_data.transforms(tmp_path)
    Image.new("RGB", (made_data.WIDTH, made_data.HEIGHT)).save(tmp_path / "images/009.png")
    whole = (tmp_path / "images/009.png").read_bytes()
    (tmp_path / "images/009.png").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"009\.png"):
        load(tmp_path, ram="0K")
    assert not list((tmp_path / "cache").glob("*pixels*"))
    (tmp_path / "images/009.png").write_bytes(whole)
    load(tmp_path, ram="0K")
    path = next((tmp_path / "cache").glob("*.pixels"))
    path.write_bytes(path.read_bytes()[:-1])  # cut short: made anew
    assert np.array_equal(load(tmp_path, ram="0K").images[4], load(tmp_path).images[4])


def test_a_full_disk_is_one_line(tmp_path, monkeypatch) -> None:
    made_data.transforms(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"No space left.*data\.cache.*data\.ram"):
        load(tmp_path, ram="0K")
    assert not list((tmp_path / "cache").glob("*pixels*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"data\.cache"):
        TransformsData(path=str(tmp_path), ram="0K", cache=str(tmp_path / "file")).load()


@pytest.mark.parametrize(("text", "size"), [("16G", 16 * 2**30), ("1.5M", 3 * 2**19), ("2K", 2048), ("0K", 0)])
def test_sizes(text, size) -> None:
    assert cache.bytes_of(text) == size


def test_the_ranks_of_a_machine_share_its_memory(monkeypatch) -> None:
    whole = cache.bytes_of("auto")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert 2**28 < cache.bytes_of("auto") <= whole / 4 < 2**44


def test_large_masks_are_looked_at_in_a_smaller_size(tmp_path, monkeypatch) -> None:
    keys = {"path": str(Photos().write(tmp_path / "data")), "holdout": 0}
    full = TransformsData(**keys).load().world_from_scene
    monkeypatch.setattr(scenes, "MASK_SIZE", SIZE // 3)
    small = TransformsData(**keys).load().world_from_scene
    assert np.abs(full - small).max() < 0.05 * full[0, 0] and not np.array_equal(full, small)


@pytest.mark.parametrize("text", ["", "16", "G", "-1G", "1X", "16 G", "1e3M", "nan"])
def test_wrong_sizes(text) -> None:
    with pytest.raises(ValidationError, match="ram"):
        TransformsData(path="x", ram=text)


def test_threads_are_bounded_by_their_memory(tmp_path, monkeypatch) -> None:
    made_data.transforms(tmp_path)
    views = TransformsData(path=str(tmp_path)).parse()
    monkeypatch.setattr(pixels.os, "cpu_count", lambda: 64)
    plan = pixels._plan(pixels.DecodeOptions("auto", (1.0, 1.0, 1.0), 1, 0, tmp_path), views, [])
    assert pixels._threads(views, plan) == pixels.MAX_THREADS
    views.size[:] = 8000  # of 512 MB while they are decoded
    assert pixels._threads(views, plan) == 1


def test_a_long_load_says_so(tmp_path, monkeypatch, capsys) -> None:
    made_data.transforms(tmp_path)
    monkeypatch.setattr(pixels, "SECONDS_BETWEEN_LINES", 0.0)
    load(tmp_path)
    assert "read 10 of 10 images" in capsys.readouterr().err


def test_a_damaged_picture_ends_the_reading(tmp_path) -> None:
    made_data.transforms(tmp_path)
    for view in range(10):
        path = tmp_path / f"images/{view:03d}.png"
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path)
