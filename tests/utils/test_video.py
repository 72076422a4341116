"""Videos as a player sees them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from utils.errors import InputError
from utils.pictures.images import Picture
from utils.pictures.video import write_video

Array = NDArray[np.uint8]


def ramp(height: int, width: int, count: int) -> Iterator[Picture]:
    across = np.linspace(0, 180, width)[None, :, None] + np.zeros((height, 1, 3))
    for i in range(count):
        yield (across + 60 * i / max(count - 1, 1)).astype(np.uint8)


def decoded(path: Path) -> tuple[str, Array]:
    """ffmpeg's line about the video stream, and the frames [N, H, W, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    result = subprocess.run(command, capture_output=True, check=True)
    stream = next(line for line in result.stderr.decode().splitlines() if "Video:" in line)
    size = re.search(r", (\d+)x(\d+)", stream)
    assert size is not None
    width, height = int(size[1]), int(size[2])
    return stream, np.frombuffer(result.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("width, height", [(321, 241), (320, 240), (1, 1), (17, 2)])
def test_plays_everywhere(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "videos" / "out.mp4"
    assert write_video(path, ramp(height, width, 5), fps=24) == 5
    stream, frames = decoded(path)
    assert "h264" in stream and "yuv420p" in stream and "24 fps" in stream
    assert frames.shape == (5, height + height % 2, width + width % 2, 3)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "starts to play before it is all loaded"
    assert [p.name for p in path.parent.iterdir()] == ["out.mp4"]


def test_colors_survive(tmp_path: Path) -> None:
    write_video(tmp_path / "out.mp4", ramp(64, 96, 6))
    _, frames = decoded(tmp_path / "out.mp4")
    for got, wanted in zip(frames, ramp(64, 96, 6), strict=True):
        assert np.abs(got.astype(int) - wanted.astype(int)).mean() < 3.0


def test_large_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "out.mp4", (np.zeros((3000, 4000, 3), np.uint8) for _ in range(1)))
    assert decoded(tmp_path / "out.mp4")[1].shape == (1, 3000, 4000, 3)


def test_wrong_frames_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(ValueError, match="at least one"):
        write_video(path, [])
    with pytest.raises(ValueError, match="frame 1"):
        write_video(path, [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)])
    with pytest.raises(InputError, match=r"\.gif"):
        write_video(tmp_path / "out.gif", ramp(4, 4, 1))
    assert list(tmp_path.iterdir()) == []


def test_missing_ffmpeg_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg._io, "get_ffmpeg_exe", missing)
    with pytest.raises(InputError, match="pip install imageio-ffmpeg"):
        write_video(tmp_path / "out.mp4", ramp(4, 4, 1))
