"""A folder of frames that is worked on until it is whole: stopped at any time, continued, shared by ranks."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from dataio.cameras import Cameras
from models.rendering.renderers.base import Source
from utils.errors import InputError
from utils.files import write_json
from utils.run_lock import NAME as LOCK
from utils.run_lock import RunLock

FORMAT = 1  # of frames: raised when the same command makes other bytes
NAME = "render.json"


def digest(source: Source, cameras: Cameras, said: Iterable[str], files: Iterable[Path]) -> str:
    """What frames depend on, as a SHA-256: what is shown, its cameras, what was asked for, and further files."""
    found = sha256(str(FORMAT).encode())
    for text in said:
        found.update(text.encode() + b"\0")
    state: dict[str, Tensor] = {} if source.model is None else source.model.state_dict()
    tensors = {f"model.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    for name, tensor in sorted({**tensors, **cameras.state()}.items()):
        found.update(name.encode() + str(tuple(tensor.shape)).encode())
        found.update(tensor.detach().cpu().numpy().tobytes())
    for path in files:
        found.update(path.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Work:
    """Frames of one rendering in a folder, a file or more each, whole or not there.

    names: of the frames, without suffix. suffixes: of the files of each.
    """

    folder: Path
    names: list[str]
    suffixes: tuple[str, ...]
    digest: str

    def lock(self) -> RunLock:
        """Keep others from the folder, until the process ends. Raises InputError where one is at work in it."""
        return RunLock(self.folder, work="rendering into", place="--out")

    def begin(self) -> None:
        """Keep what an earlier process made of this very rendering; drop what it made of another one, or half.

        Raises InputError where a file that is no rendering's stands in the way of one.
        """
        known = self._known()
        before = known.get("frames")
        made = {Path(str(name)).name for name in before} if isinstance(before, list) else set()
        foreign = next((path for path in self._files(self.names) if path.exists() and path.stem not in made), None)
        if foreign is not None:
            raise InputError(f"{foreign}: is there, and no frame that {NAME} knows - expected another folder")
        if known.get("digest") != self.digest:
            for path in self._files(made):
                path.unlink(missing_ok=True)
        for path in self._files(made | set(self.names)):
            for left in self.folder.glob(f".{glob.escape(path.stem)}.*.tmp{path.suffix}"):  # of a killed process
                left.unlink(missing_ok=True)
        write_json(self.folder / NAME, {"format": FORMAT, "digest": self.digest, "frames": self.names})

    def _files(self, names: Iterable[str]) -> Iterator[Path]:
        """All files of frames of these names."""
        return (self.folder / f"{name}{suffix}" for name in names for suffix in self.suffixes)

    def _known(self) -> dict[str, object]:
        with suppress(OSError, ValueError):
            content = json.loads((self.folder / NAME).read_text("utf-8"))
            return content if isinstance(content, dict) else {}
        return {}

    def file(self, index: int, suffix: str | None = None) -> Path:
        """The file of frame `index` that ends in `suffix`; None: the only one."""
        return self.folder / f"{self.names[index]}{suffix or self.suffixes[-1]}"

    def has(self, index: int) -> bool:
        """Whether all files of frame `index` are there."""
        return all(self.file(index, suffix).is_file() for suffix in self.suffixes)

    def clear(self) -> None:
        """Remove the frames, and the folder where nothing else is in it."""
        for path in (*self._files(self.names), self.folder / NAME, self.folder / LOCK):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
