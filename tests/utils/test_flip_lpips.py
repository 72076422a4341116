"""FLIP and LPIPS against closed forms and numbers of the published programs; depths by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.errors import InputError
from utils.evaluation.depth_metrics import depth_numbers
from utils.evaluation.flip import flip
from utils.evaluation.image_metrics import ssim
from utils.evaluation.lpips import STAGES, Lpips
from utils.evaluation.view_scores import mean, means, score_view

CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def gray(value: float, size: int = 48) -> torch.Tensor:
    return torch.full((size, size, 3), value)


def checks(size: int, step: int) -> torch.Tensor:
    """A board of black and white squares."""
    row = torch.arange(size) // step % 2
    return (row[:, None] ^ row).float()[..., None].expand(size, size, 3)


def test_flip_of_colors() -> None:
    """Nothing differs from itself; green and blue, black and white are at the far end; small steps are small."""
    assert flip(gray(0.3), gray(0.3)).abs().max() == 0
    green, blue = (torch.tensor(x).expand(48, 48, 3) for x in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    assert flip(green, blue).mean() == pytest.approx(1, abs=1e-6)
    small = flip(gray(0.50), gray(0.51)).mean()
    assert 0 < small < 0.12 < flip(gray(0.0), gray(1.0)).mean() <= 1
    with pytest.raises(ValueError, match="expected"):
        flip(gray(0.1), gray(0.1, 20))


# By flip-evaluator 1.7, the package of the authors, of the same pictures.
@pytest.mark.parametrize(("case", "published"), [("gray", 0.285058), ("board", 0.712737), ("red", 0.841771)])
def test_flip_is_that_of_its_authors(case: str, published: float) -> None:
    pairs = {
        "gray": (gray(0.5), gray(0.6)),
        "board": (checks(48, 6), checks(48, 8)),
        "red": (checks(48, 6) * torch.tensor([1.0, 0.5, 0.5]), checks(48, 6)),
    }
    assert flip(*pairs[case]).mean().item() == pytest.approx(published, abs=1e-3)


def weights(name: str, value: float = 0.0) -> dict[str, torch.Tensor]:
    """A file as the package lpips writes one: only the first stage says something, its first channel red."""
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    channels = 3
    for stage, layers in enumerate(STAGES[name]):
        for layer in layers:
            side = {("alex", 0): 11, ("alex", 3): 5}.get((name, layer), 3)
            key = f"net.slice{stage + 1}.{layer}"
            state[f"{key}.weight"] = torch.zeros(CHANNELS[name][stage], channels, side, side)
            state[f"{key}.bias"] = torch.zeros(CHANNELS[name][stage])
            channels = CHANNELS[name][stage]
        state[f"lin{stage}.model.1.weight"] = torch.zeros(1, channels, 1, 1)
    side = state["net.slice1.0.weight"].shape[-1]
    state["net.slice1.0.weight"][0, 0, side // 2, side // 2] = 1
    if name == "vgg":  # the second convolution of the stage hands it on
        state["net.slice1.2.weight"][0, 0, 1, 1] = 1
    state["lin0.model.1.weight"][0, 0] = value
    return state


@pytest.mark.parametrize("name", list(STAGES))
def test_lpips_of_one_channel(tmp_path: Path, name: str) -> None:
    """A channel alone has length one wherever it is lit: of two pictures, one with red above and one below the middle,

    the distance is the share of the lit, times the layer's weight.
    """
    torch.save(weights(name, 0.7), tmp_path / "w.pt")
    measure = Lpips.read(tmp_path / "w.pt")
    half = gray(1.0, 64)
    half[:32] = 0.2  # below the middle of [0, 1] the channel is not lit
    assert measure.name == name
    assert measure(half, half) == 0
    tolerance = 1e-6 if name == "vgg" else 0.1  # AlexNet sees every fourth pixel
    assert measure(half, gray(1.0, 64)) == pytest.approx(0.7 * 0.5, abs=tolerance)
    assert measure(gray(0.1, 63), gray(0.2, 63)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("scaling_layer.shift"), "scaling_layer.shift"),
        (lambda state: state.update({"net.slice2.3.weight": torch.zeros(192, 63, 5, 5)}), "net.slice2.3.weight"),
        (lambda state: state.update({"lin4.model.1.weight": torch.full((1, 256, 1, 1), torch.nan)}), "not finite"),
        (lambda state: state.clear(), "lpips.LPIPS"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: Any, words: str) -> None:
    state = weights("alex")
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=words) as caught:
        Lpips.read(tmp_path / "w.pt")
    assert "\n" not in str(caught.value) and "w.pt" in str(caught.value)
    (tmp_path / "w.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="lpips.LPIPS"):
        Lpips.read(tmp_path / "w.pt")


def test_ssim_within_a_mask() -> None:
    """Windows whose middles are in the upper half, far from the lower one that differs."""
    x, y = checks(40, 5), checks(40, 5).clone()
    y[24:] = 0.5
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[:19] = True
    assert ssim(x, y, mask) == pytest.approx(1, abs=1e-6) and ssim(x, y) < 0.8
    found = score_view(x, y, mask)
    assert found["ssim_masked"] == pytest.approx(1, abs=1e-6) and found["psnr_masked"] == pytest.approx(100, abs=1e-4)
    assert score_view(x, y, torch.zeros(40, 40, dtype=torch.bool))["flip_masked"] is None
    border = torch.zeros(40, 40, dtype=torch.bool)
    border[0] = True
    assert score_view(x, y, border)["ssim_masked"] is None, "no window has its middle there"
    small = score_view(gray(0.1, 5), gray(0.2, 5))
    assert small["ssim"] is None and small["psnr"] == pytest.approx(20, abs=1e-4)


def test_depths_by_hand() -> None:
    found = depth_numbers(np.array([1.0, 2.4, 3.0, 0.0]), np.array([1.0, 2.0, 2.0, 4.0]))
    assert found["abs_rel"] == pytest.approx((0 + 0.2 + 0.5 + 1) / 4)
    assert found["rmse"] == pytest.approx(np.sqrt((0.16 + 1 + 16) / 4))
    assert [found[f"delta_{power}"] for power in (1, 2, 3)] == [0.5, 0.75, 0.75]
    assert depth_numbers(np.zeros(0), np.zeros(0))["rmse"] is None
    assert depth_numbers(np.array([np.nan]), np.array([2.0]))["abs_rel"] == 1


def test_means_leave_out_what_was_not_measured() -> None:
    assert mean((1.0, None, 3.0)) == 2.0 and mean((None, None)) is None
    assert means([{"a": 1.0, "b": None}, {"a": 3.0, "c": 2.0}]) == {"a": 2.0, "b": None, "c": 2.0}
