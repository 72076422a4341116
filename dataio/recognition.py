"""Which format a folder or file is of, when the config does not say it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dataio.checks.unrecognized import nearest_miss
from dataio.files import need_folder, notice, shown
from dataio.scene import DataConfig, Inspection, Scene
from dataio.views import Views
from utils.config.parts import discover, parts
from utils.errors import InputError

MOST_FOLDERS = 100  # entries that are looked at for data


class AutoData(DataConfig):
    """The format is recognized from the files."""

    type: Literal["auto"] = "auto"

    prepared: str | None = Field(default=None, description="of raw photographs: folder for what is found")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Never: this one only tries the others."""
        return False

    def resolve(self) -> DataConfig:
        """The config of the recognized format, with the same common keys. Raises InputError."""
        discover("dataio.formats")
        path = need_folder(self.path)
        found = _recognized(path)
        if not found:
            inner = next((entry for entry in _folders(path) if _with_poses(entry)), None)
            reason = f"it has data in it: write data.path={shown(inner)}" if inner else nearest_miss(path)
            known = ", ".join(name for name in parts(DataConfig) if name != "auto")
            raise InputError(f"data.path: {shown(path)} - not recognized: {reason} - expected files of one of: {known}")
        found = {name: part for name, part in found.items() if not part.last_resort} or found
        best = max(found, key=lambda name: found[name].priority)
        if len(found) > 1:
            others = ", ".join(name for name in found if name != best)
            notice(f"{shown(path)}: read as {best} (also possible with data.type: {others})")
        keys = self.model_dump(exclude={"type"} if self.prepared else {"type", "prepared"})
        if not keys.keys() <= found[best].model_fields.keys():
            raise InputError(
                f"data.prepared: {shown(path)} was read as {best}, which has its poses - expected raw photographs"
            )
        return found[best](**keys)

    def parse(self) -> Views:
        """As the recognized format does."""
        return self.resolve().parse()

    def load(self) -> Scene:
        """As the recognized format does."""
        return self.resolve().load()

    def inspect(self) -> Inspection:
        """As the recognized format does."""
        return self.resolve().inspect()


def _recognized(path: Path) -> dict[str, type[DataConfig]]:
    """The formats that a folder or file looks like."""
    return {name: part for name, part in parts(DataConfig).items() if part.recognizes(path)}


def _with_poses(path: Path) -> bool:
    """Whether a folder is of a format that is more than photographs, which are in the folders of many."""
    return any(not part.last_resort for part in _recognized(path).values())


def _folders(path: Path) -> list[Path]:
    """The first few folders in a folder."""
    entries = sorted(path.iterdir())[:MOST_FOLDERS] if path.is_dir() else []
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
