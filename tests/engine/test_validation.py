"""Pictures on the way: what they show, and what their captions say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from dataio.cameras import Cameras
from engine import validation
from models.rendering.frames import Frame
from utils.pictures.images import turbo
from utils.pictures.sheets import caption_strip


def scene_of(*grays: int, held_out: int) -> SimpleNamespace:
    """Views of 400 x 200 pixels, which are shown as 283 x 141, each of one gray."""
    count = len(grays)
    return SimpleNamespace(
        images=[np.full((200, 400, 3), gray, np.uint8) for gray in grays],
        names=[f"left/view_{view}" for view in range(count)],
        cameras=Cameras.make(np.eye(4)[None].repeat(count, 0), [200.0, 200.0, 200.0, 100.0], [400, 200]),
        world_from_scene=np.diag([2.0, 2.0, 2.0, 1.0]),
        splits={"test": np.arange(held_out), "train": np.arange(held_out, count)},
    )


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a model shows is a gray of 0.3, 1 to 3 away."""

    def of(model: Any, cameras: Cameras, view: int, *, photograph: bool) -> Frame:
        assert photograph and cameras.size[view].tolist() == [283, 141]
        depth = torch.linspace(1.0, 3.0, 283).expand(141, 283)
        return Frame(torch.full((141, 283, 3), 0.3), depth, torch.ones(141, 283, 3), torch.ones(141, 283))

    monkeypatch.setattr(validation, "render_image", of)


def test_training_views_are_shown_as_held_out_ones_are(rendered: None) -> None:
    """Three of five, evenly spread; a view that is not shown is black."""
    scene = scene_of(0, 0, 0, 0, 51, 0, 26, 0, 102, held_out=4)
    psnr = [-20 * np.log10(abs(0.3 - gray / 255)) for gray in (51, 26, 102)]
    found = validation.training_psnr(cast(Any, None), cast(Any, scene), torch.device("cpu"))
    assert found == pytest.approx(np.mean(psnr), abs=1e-4)


def test_a_held_out_view_with_its_captions(rendered: None) -> None:
    """A rendering that is 0.1 too bright has 20 dB, depths are doubled."""
    scene = scene_of(51, held_out=1)
    picture, quality = validation.validate(cast(Any, None), cast(Any, scene), 0, torch.device("cpu"), step=500)
    assert quality == pytest.approx(20.0, abs=1e-4)
    assert picture.shape == (4 + 16 + 141 + 4, 5 * (283 + 4) + 4, 3)
    assert (picture[20:161, 4:287] == 51).all() and (picture[20:161, 291:574] == 76).all()
    for number, text in enumerate(("left/view_0", "step 500, 20.00 dB")):
        left = 4 + number * 287
        np.testing.assert_array_equal(picture[4:20, left : left + 283], caption_strip(text, None, 283, 16))
    low, high = 2 * np.percentile(np.linspace(1.0, 3.0, 283), (1, 99)) + np.array([-1, 1]) * 0.09
    bar = caption_strip("depth", (low, high), 283, 16)
    assert (picture[4:20, 865:1148] == bar).mean() > 0.97, "2 to 6 world units"
    np.testing.assert_array_equal(picture[4:20, 578:861], caption_strip("error", (0.0, 0.25), 283, 16))
    share = round((76 - 51) / 255 / 0.25 * 255)
    assert (picture[20:161, 578:861] == turbo()[share]).all(), "an error of 0.098 everywhere"
