"""Somebody who looks, without a browser: speaks viser's protocol over a WebSocket."""

from __future__ import annotations

import io
import time
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

Vector = tuple[float, float, float]


class Client:
    """A connection to a viewer on this machine, whose camera stands where `look` says."""

    def __init__(self, port: int) -> None:
        import viser
        from websockets.sync.client import connect

        protocol: Any = [f"viser-v{viser.__version__}"]
        self.socket = connect(f"ws://127.0.0.1:{port}", subprotocols=protocol, max_size=None, compression=None)
        self.pictures = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def look(self, position: Vector, wxyz: tuple[float, ...], *, size: tuple[int, int] = (96, 64)) -> None:
        """Move the camera. wxyz: its turn; size: width and height of the window."""
        import msgspec

        message = {
            "type": "ViewerCameraMessage", "wxyz": wxyz, "position": position, "fov": 0.7, "near": 0.01, "far": 1000.0,
            "image_height": size[1], "image_width": size[0], "look_at": (0.0, 0.0, 0.0),
            "up_direction": (0.0, 0.0, 1.0),
        }  # fmt: skip
        self.socket.send(msgspec.msgpack.encode(message))

    def messages(self, timeout: float) -> list[dict[str, Any]]:
        """What comes next, pictures as bytes."""
        data = self.socket.recv(timeout=timeout)
        assert isinstance(data, bytes)
        return decoded(data)

    def picture(self, timeout: float = 20.0, *, least_width: int = 1) -> np.ndarray:
        """The next picture behind the scene that is at least so wide, [H, W, 3] uint8."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for message in self.messages(end - time.monotonic()):
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"]:
                    self.pictures += 1
                    image = np.asarray(Image.open(io.BytesIO(message["rgb_data"])).convert("RGB"))
                    if image.shape[1] >= least_width:
                        return image
        raise TimeoutError("no picture")

    def rest(self, seconds: float = 4.0) -> None:
        """Wait until no picture has come for a while."""
        try:
            while True:
                self.picture(seconds)
        except TimeoutError:
            return


def decoded(data: bytes) -> list[dict[str, Any]]:
    """The messages of a frame that a viewer sends, pictures as bytes."""
    import msgspec
    import zstandard

    end = 16 + int.from_bytes(data[8:16], "little")
    found = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16:end]))
    parts, at = [], end
    for length in found["binaryBufferLengths"]:
        at += -at % 8
        parts.append(data[at : at + length])
        at += length
    for message in found["messages"]:
        for name, value in message.items():
            if isinstance(value, dict) and "__binary_index" in value:
                message[name] = parts[value["__binary_index"]]
    return list(found["messages"])
