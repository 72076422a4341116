"""Frames to a video that plays everywhere: mp4, H.264, yuv420p, even sizes, index at the front."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import InputError
from utils.files import replacing
from utils.pictures.images import Picture


def write_video(path: Path, frames: Iterable[Picture], *, fps: float = 30.0, crf: int = 18) -> int:
    """Encode frames one by one as they come and return how many there were.

    frames: [H, W, 3] uint8, all of one size; odd sizes grow by one pixel, a copy of the edge. fps: frames per
    second. crf: quality, 0 (lossless) to 51; 18 looks lossless. The file appears at `path` when it is
    complete. Raises ValueError without frames or when sizes differ, InputError when ffmpeg is missing or the
    encoder fails, and StorageError where the disk refuses.
    """
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: a video is written as .mp4, got '{path.suffix}'")
    with replacing(path) as temporary:
        return _encode(temporary, frames, fps, crf)


def _encode(path: Path, frames: Iterable[Picture], fps: float, crf: int) -> int:
    writer: Generator[None, Any, None] | None = None
    size: tuple[int, ...] = ()
    count = 0
    try:
        for frame in frames:
            if writer is None:
                size = frame.shape
                writer = _start(path, size, fps, crf)
            if frame.shape != size or frame.dtype != np.uint8:
                raise ValueError(f"frame {count}: uint8 {size} expected, got {frame.dtype} {frame.shape}")
            _send(writer, _even(frame), path)
            count += 1
    finally:
        if writer is not None:
            writer.close()  # waits for ffmpeg to finish the file
    if count == 0:
        raise ValueError("a video needs at least one frame")
    if not path.exists() or path.stat().st_size == 0:
        raise InputError(f"{path}: ffmpeg wrote nothing; is the disk full?")
    return count


def _start(path: Path, size: tuple[int, ...], fps: float, crf: int) -> Generator[None, Any, None]:
    import imageio_ffmpeg

    height, width = size[0] + size[0] % 2, size[1] + size[1] % 2
    try:
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=1,
            quality=None,
            ffmpeg_log_level="error",
            output_params=["-crf", str(crf), "-movflags", "+faststart"],
        )
        writer.send(None)
    except RuntimeError as error:
        raise InputError(f"ffmpeg - not found ({error}) - pip install imageio-ffmpeg") from error
    return writer


def _send(writer: Generator[None, Any, None], frame: Picture, path: Path) -> None:
    try:
        writer.send(frame)
    except (OSError, StopIteration) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: the video encoder stopped: {reason or 'no reason given'}") from error


def _even(frame: Picture) -> Picture:
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)
