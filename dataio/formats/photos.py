"""Raw photographs: their poses are found by structure from motion, once, and kept in a folder of their own.

That folder is a data set in COLMAP's layout: images/ with the photographs as they are meant to be seen, upright, and
sparse/ with the models. The folder of the photographs is never written to.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from PIL import Image, ImageOps
from pydantic import BaseModel, Field, ValidationError

from dataio.files import need_folder, notice, shown
from dataio.formats.colmap import ColmapData
from dataio.formats.colmap_model import count_photos
from dataio.pictures import cache, images
from dataio.pictures.exif import BROKEN_EXIF, Exif
from dataio.pictures.photographs import Source, only_photographs, read_source
from dataio.scene import DataConfig, Inspection, Scene
from dataio.sfm.structure_from_motion import (
    Effort,
    Limits,
    Matching,
    camera_groups,
    choose_pairs,
    find_models,
    need_pycolmap,
)
from dataio.views import Views
from utils.config.text import MEMORY
from utils.errors import InputError, StorageError
from utils.files import link_or_copy, replacing, write_json

VERSION = 1  # of what is made of photographs
ENOUGH = 0.6  # of the photographs; below that there is advice
REPORT, WORK = "prepared.json", "work"
INSIDE = "images"


class Prepared(BaseModel):
    """What prepared.json says: of which photographs the folder was made, and what came of them."""

    state: str
    photographs: int
    models: list[int]  # photographs in each, the largest first

    def lines(self) -> list[str]:
        """What the user should know."""
        registered = self.models[0] if self.models else 0
        found = [f"{registered} of {self.photographs} registered"]
        if len(self.models) > 1:
            sizes = ", ".join(map(str, self.models))
            found.append(
                f"the photographs fall into {len(self.models)} models that were not joined, of {sizes} photographs:"
                " going on with the largest"
            )
        return found + (advice() if registered < ENOUGH * self.photographs else [])


def advice() -> list[str]:
    """What helps when few photographs find their place."""
    return [
        "1. more overlap: each part in three photographs or more, ten to fifteen degrees apart; move, do not only turn;"
        " photographs between the groups join them",
        "2. let nothing move against the background: an object that was turned over or is on a turntable wants masked"
        " or plain photographs, or one set per position",
        "3. look harder: data.matching=exhaustive data.features=16384 data.size=3200; leave out photographs that are"
        " blurred or overexposed",
    ]


class PhotosData(DataConfig):
    """A folder with photographs and nothing else, or with such a folder in it, called images."""

    type: Literal["photos"] = "photos"
    last_resort: ClassVar[bool] = True  # any format with poses says more

    prepared: str | None = Field(
        default=None, description="folder for what is found; default: in data.cache, else the user's cache folder"
    )
    matching: Matching = Field(
        default="auto",
        description="which photographs are compared: exhaustive, all; sequential, those near in name; gps, those near"
        " in place; auto: all of up to 60, then gps where they know their place, else sequential",
    )
    lens: Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"] = Field(
        default="SIMPLE_RADIAL", description="COLMAP's camera model"
    )
    size: int = Field(default=2000, ge=200, le=16_000, description="longer side in which features are found, pixels")
    features: int = Field(default=6000, ge=200, le=100_000, description="most features per photograph")
    memory: Annotated[str, MEMORY] = Field(
        default="auto", description="of the process that finds the poses; as data.ram"
    )
    minutes: float = Field(default=120.0, gt=0, le=1e6, description="longest time for that process")
    threads: int = Field(default=0, ge=0, le=512, description="of that process; 0: all")
    georeference: Literal["auto", "off"] = Field(default="auto", description="as for COLMAP models")
    min_track: int = Field(default=3, ge=0, description="as for COLMAP models")
    max_error: float = Field(default=2.0, gt=0, description="as for COLMAP models")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """A folder with pictures and no other files or folders; beside one that is called images may be anything."""
        return only_photographs(path) or only_photographs(path / INSIDE)

    def folder(self) -> Path:
        """`path`, or the folder called images in it where that holds the photographs. Raises InputError."""
        path = need_folder(self.path)
        inside = path / INSIDE
        return inside if only_photographs(inside) and not only_photographs(path) else path

    def inspect(self) -> Inspection:
        """What is known; no poses are looked for, but those that were found before are looked at. Raises InputError."""
        photos = self.folder()
        source = read_source(photos)
        if _known(self.place(photos), _state(source, self.effort())) is not None:
            return self.model().inspect()
        need_pycolmap()
        line = f"{shown(photos)}: {len(source.paths)} photographs, whose poses will be found first"
        masked = self.masks != "off" and all(map(images.has_alpha, source.paths))
        masked = masked and not all(map(images.is_opaque, source.paths))
        return Inspection(line, frozenset({"mask"} if masked else ()))

    def parse(self) -> Views:
        """Find the poses, unless they were found before. Raises InputError."""
        return self.model().parse()

    def load(self) -> Scene:
        """The scene, as that of the prepared folder."""
        return self.model().load()

    def model(self) -> ColmapData:
        """The prepared folder's config. Raises InputError when the poses cannot be found."""
        photos = self.folder()
        folder = self.place(photos)
        for line in prepare(self, folder).lines():
            notice(f"{shown(photos)}: {line}")
        return self.found(folder)

    def found(self, folder: Path) -> ColmapData:
        """The config of a folder that was prepared, with the keys that both formats have."""
        common = self.model_dump(include=set(DataConfig.model_fields) | {"georeference", "min_track", "max_error"})
        return ColmapData(**{**common, "path": str(folder), "model": "sparse/0"})

    def effort(self) -> Effort:
        return Effort(matching=self.matching, lens=self.lens, size=self.size, features=self.features)

    def place(self, photos: Path) -> Path:
        """The folder for what is found of these photographs."""
        if self.prepared:
            return Path(self.prepared).expanduser()
        name = cache.digest([VERSION, str(photos.resolve()), list(vars(self.effort()).values())])
        return cache.folder_of(self.cache) / f"photos-{name}"


def prepare(config: PhotosData, folder: Path) -> Prepared:
    """Photographs to a COLMAP data set in `folder`, or what is there of an earlier time.

    Raises InputError for folders that cannot be used, when pycolmap is missing or fails, and when no two
    photographs belong together; StorageError where the disk refuses.
    """
    photos = config.folder()
    if photos.is_dir() and folder.resolve().is_relative_to(photos.resolve()):
        raise InputError(f"{shown(folder)} - lies in the folder of the photographs - expected a folder elsewhere")
    source = read_source(photos)
    state = _state(source, config.effort())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with cache.alone(folder.with_name(f".{folder.name}.lock")):  # several ranks find the poses once
            known = _known(folder, state)
            return known or _prepare(config, source, folder, state)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{shown(folder)} - cannot be written: {error.strerror or error}") from error


def _prepare(config: PhotosData, source: Source, folder: Path, state: str) -> Prepared:
    need_pycolmap()
    _clear(folder)
    work = folder / WORK
    _, names, exifs = source = source.decodable()
    copies = [folder / INSIDE / name for name in names]
    for path, exif, copy in zip(source.paths, exifs, copies, strict=True):
        upright(path, exif, copy)
    sizes = [images.image_size(copy) for copy in copies]
    models = find_models(
        folder / INSIDE,
        camera_groups(names, exifs, sizes, config.lens),
        choose_pairs(exifs, config.matching),
        work=work,
        effort=config.effort(),
        limits=Limits(cache.bytes_of(config.memory), config.minutes, config.threads),
    )
    if not models:
        text = "\n".join([f"{shown(config.path)} - 0 of {len(names)} registered: no two photographs fit", *advice()])
        raise InputError(text)
    for number, model in enumerate(models):
        (folder / "sparse").mkdir(exist_ok=True)
        os.replace(model, folder / "sparse" / str(number))
    counts = [count_photos(folder / "sparse" / str(number), root=folder) for number in range(len(models))]
    shutil.rmtree(work)
    report = Prepared(state=state, photographs=len(names), models=counts)
    write_json(folder / REPORT, report.model_dump())
    return report


def upright(path: Path, exif: Exif, copy: Path) -> None:
    """Make a file of a photograph that needs no turning: linked where it is one, else turned.

    Raises InputError for a photograph that cannot be decoded.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    if exif.orientation == 1:
        link_or_copy(path, copy)
        return
    try:
        with images.opened(path) as picture:
            turned = ImageOps.exif_transpose(picture)
            lossy = {"quality": 95, "subsampling": 0} if picture.format == "JPEG" else {}
            with replacing(copy) as temporary:
                turned.save(temporary, format=picture.format, exif=turned.info.get("exif", b""), **lossy)
    except (*BROKEN_EXIF, Image.DecompressionBombError) as error:
        if isinstance(error, StorageError):
            raise
        raise InputError(f"{shown(path)} - damaged image: {shown(error)}") from error


def _state(source: Source, effort: Effort) -> str:
    """Changes when a photograph or an option does."""
    states = [path.stat() for path in source.paths]
    files = [(name, state.st_size, state.st_mtime_ns) for name, state in zip(source.names, states, strict=True)]
    return cache.digest([VERSION, files, list(vars(effort).values())])


def _known(folder: Path, state: str) -> Prepared | None:
    """What an earlier run left, if it is of the same photographs and options, and whole."""
    try:
        report = Prepared.model_validate_json((folder / REPORT).read_text("utf-8"))
    except (OSError, ValidationError, ValueError):
        return None
    return report if report.state == state and (folder / "sparse" / "0").is_dir() else None


def _clear(folder: Path) -> None:
    """Remove what an earlier run made. Raises InputError for a folder with anything else in it."""
    ours = {REPORT, WORK, "images", "sparse"}
    others = [entry.name for entry in folder.iterdir() if entry.name not in ours]
    made = (folder / REPORT).is_file() or (folder / WORK).is_dir()
    if others or (not made and any(folder.iterdir())):
        name = shown((others or ["images"])[0])
        raise InputError(f"{shown(folder)} - is not empty, it has {name} - expected a new folder for what is found")
    for name in ("sparse", "images", WORK):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / REPORT).unlink(missing_ok=True)
    (folder / WORK).mkdir()
