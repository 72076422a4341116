"""What every loader returns: a `Scene`; and what all loaders share: config, images, splits, frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dataio import normalize
from dataio.cameras import Cameras
from dataio.checks.unread import say_masks, say_pictures
from dataio.files import Float64, notice, shown
from dataio.georeference import Georeference
from dataio.held_out import held_out
from dataio.pictures import cache, images
from dataio.pictures.images import Float32, UInt8
from dataio.pictures.pictures import Pictures
from dataio.pictures.pixels import DecodeOptions, bytes_in_memory, check_files, read_pixels
from dataio.placement import placed
from dataio.quantities.base import quantity
from dataio.quantities.sources import Wanted, with_further
from dataio.sfm.plane_sweep import densified
from dataio.sfm.triangulation import ENOUGH, TOO_FEW, SparsePoints, triangulated
from dataio.views import OWN_FIELDS, Tracks, Views, checked
from utils.config.parts import Part
from utils.config.text import MEMORY
from utils.errors import InputError

if TYPE_CHECKING:
    import trimesh

Color = tuple[float, float, float]
Unit = Annotated[float, Field(ge=0, le=1)]
Vector = tuple[float, float, float]

MOST_NAMED = 8  # views that are named in a line
MASK_SIZE = 1024  # larger masks are looked at in this size when the region of interest is found


@dataclass(frozen=True)
class Scene:
    """Posed images of one place, in scene units: the region of interest is the unit sphere."""

    cameras: Cameras
    images: Sequence[UInt8]  # [H, W, 3] each
    masks: Sequence[UInt8] | None  # [H, W] each, 255 = object
    depths: Sequence[Float32] | None  # [H, W] each, z depth in scene units, 0 = unknown
    points: Float32 | None  # [P, 3] sparse surface points
    splits: dict[str, npt.NDArray[np.int64]]  # "train", "test" and perhaps "val" -> indices of views
    world_from_scene: Float64  # [4, 4] similarity
    names: list[str]
    up: Float64  # [3] unit, world frame
    background: Color | None  # the color where the mask is 0, when images were composited
    reference: Callable[[], trimesh.Trimesh] | None = None  # the true surface, world units
    georeference: Georeference | None = None  # of a world in meters, east, north, up
    further: Mapping[str, Sequence[Float32]] = field(default_factory=dict)  # [H, W] or [H, W, K] each, by name
    tracks: Tracks | None = None  # which views saw which of the points
    room: bool = False  # whether it is seen from within
    point_colors: UInt8 | None = None  # [P, 3] of the points, where they are known

    @property
    def quantities(self) -> dict[str, Sequence[Any]]:
        """What there is per pixel beside color, by name: pictures [H, W] or [H, W, K], in the cameras' frames.

        Lengths are in scene units. See `dataio.quantities` for what each one means.
        """
        named = {"mask": self.masks, "depth": self.depths, **self.further}
        return {name: pictures for name, pictures in named.items() if pictures is not None}

    @cached_property
    def sparse_points(self) -> SparsePoints:
        """Points on surfaces, and the training views that saw them: the data's own where they say who did.

        Else triangulated from the photographs, which takes seconds and is said.
        """
        train = self.splits["train"]
        if self.points is not None and self.tracks is not None:
            own = np.isin(self.tracks.view, train)
            return SparsePoints(self.points, self.tracks.point[own], self.tracks.view[own])
        found = triangulated(self.cameras, self.images, self.masks, train)
        few = "" if len(found) >= ENOUGH else f": {TOO_FEW}"
        notice(f"{len(found):,} sparse points triangulated from {len(train)} photographs{few}")
        return found

    @cached_property
    def dense_points(self) -> SparsePoints:
        """Those, and more from planes swept through space before training views, which is said."""
        return densified(self.sparse_points, self.cameras, self.images, self.masks, self.splits["train"])

    def has(self, name: str) -> bool:
        """Whether there is the quantity of this name."""
        return name in self.quantities

    def with_quantities(self, pictures: Mapping[str, Sequence[Any]]) -> Scene:
        """The same scene with pictures [H, W] or [H, W, K] of these quantities, by name, and no others."""
        rest = {name: each for name, each in pictures.items() if name not in OWN_FIELDS}
        return replace(self, masks=pictures.get("mask"), depths=pictures.get("depth"), further=rest)

    def reframed(self, world_from_scene: Float64) -> Scene:
        """The same scene in the frame of another one with the same world, whose world_from_scene [4, 4] is given."""
        to_new = normalize.inverse(world_from_scene) @ self.world_from_scene
        scale = _scale(to_new)
        points = self.points
        if points is not None:
            points = (points @ to_new[:3, :3].T + to_new[:3, 3]).astype(np.float32)
        return replace(
            self.with_quantities(scaled(self.quantities, scale)),
            cameras=self.cameras.transformed(to_new),
            points=points,
            world_from_scene=np.array(world_from_scene, dtype=np.float64),
        )


class Inspection(NamedTuple):
    """What data say before any picture is decoded."""

    line: str  # for the user
    quantities: frozenset[str]  # per pixel, by name, that the scene will have
    outline: Callable[[], Scene] | None = None  # the scene without pictures; None where its cameras are not known yet
    pixels: int = 0  # bytes that all pictures will take in memory, as far as that is known


def scaled(pictures: Mapping[str, Sequence[Any]], scale: float) -> dict[str, Sequence[Any]]:
    """Pictures [H, W] or [H, W, K] of quantities, by name, those of lengths times `scale`."""
    return {
        name: Pictures.of(each).times(scale) if quantity(name).is_length else each for name, each in pictures.items()
    }


class DataConfig(Part):
    """Where the data are and how they are looked at; the keys that all formats share."""

    default_type: ClassVar[str | None] = "auto"
    priority: ClassVar[int] = 0  # of several formats that recognize a folder, the highest is taken
    mask_place: ClassVar[str] = "the alpha of the pictures"  # of this format
    shows_all: ClassVar[bool] = True  # whether pictures beside those with a pose are worth a line
    last_resort: ClassVar[bool] = False  # a format that is taken, and named, only where no other one is found

    path: str | None = Field(default=None, description="folder or file of the data")
    masks: Literal["auto", "composite", "keep", "off"] = Field(
        default="auto",
        description="composite: background color where the mask says so; keep: pictures as they are, masks beside"
        " them; auto: composite if there are masks",
    )
    quantities: Wanted = Field(
        default="auto",
        description="what else is read per pixel, as normal, confidence: a list of names; auto: what there is",
    )
    background: Literal["white", "black"] | tuple[Unit, Unit, Unit] = Field(
        default="white", description="color behind masked images, a name or [r, g, b] in 0..1"
    )
    downscale: int = Field(default=1, ge=1, le=64, description="divide the image size by this")
    holdout: int = Field(
        default=8, ge=0, description="one view in n is for tests, from among the others, 0: none; unless the data say"
    )
    center: Literal["auto"] | Vector = Field(default="auto", description="center of the unit sphere, world units")
    radius: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        default="auto", description="radius of the unit sphere, world units"
    )
    region: Literal["auto", "object", "room"] = Field(
        default="auto", description="what the unit sphere holds; a room: all cameras and all that they measured"
    )
    up: Literal["auto"] | Vector = Field(default="auto", description="the world's up direction")
    near: float = Field(default=0.05, ge=0, description="nearest distance from a camera, scene units")
    ram: Annotated[str, MEMORY] = Field(
        default="auto",
        description="memory that pixels may take, as 16G; beyond it they are read from a file on disk;"
        " auto: six tenths of the machine's",
    )
    device: Literal["auto", "gpu", "host"] = Field(
        default="auto",
        description="whose memory pixels are in while a run trains, and who chooses them; auto: a GPU's that computes"
        " the run, where they take half of what is free at most",
    )
    cache: str | None = Field(default=None, description="folder of that file; default: under the user's cache folder")
    allow_outside: bool = Field(default=False, description="let data files name files outside their folder")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Whether the folder or file looks like this format; one that says nothing is read by data.type alone."""
        return False

    def parse(self) -> Views:
        """Read what the format's file says, without decoding images. Raises InputError."""
        raise NotImplementedError

    def load(self) -> Scene:
        """The scene: checked, images in memory, in scene units. Raises InputError."""
        return assemble(self, self.parse())

    def check(self) -> str:
        """One line about the data, without decoding images. Raises InputError."""
        return self.inspect().line

    def inspect(self) -> Inspection:
        """What can be known without decoding images. Raises InputError for whatever loading would refuse."""
        views, options = usable(self, self.parse()), decode_options(self)
        present = check_files(options, views)
        splits = make_splits(views, holdout=self.holdout)
        if not len(splits["train"]):
            raise InputError(f"{shown(views.source)} - no views to train on, of {len(views.names)} - see its splits")
        sketch = lru_cache(maxsize=1)(partial(outline, self, views))  # also for whoever asks what suits the data
        if _is_room(self, views) and "depth" not in views.files:
            sketch()  # refuses a room of which no points are known
        names = frozenset(quantity.name for quantity in present)
        points = "" if "mask" in names else said_of_points(views, sketch)
        line = f"{shown(views.source)}: {len(views.names)} views, {shown(said_of_splits(views, splits))}{points}"
        return Inspection(line, names, sketch, bytes_in_memory(options, views, present))


def usable(config: DataConfig, views: Views) -> Views:
    """The views that are sound, with the further quantities that the config wants. Raises InputError.

    Says what lies beside them and is not read.
    """
    if config.masks != "off":
        say_masks(views, config.mask_place)
    if config.shows_all:
        say_pictures(views)
    return further(config, checked(views))


def further(config: DataConfig, views: Views) -> Views:
    """Views with the files of the quantities per pixel that the config wants. Raises InputError."""
    return with_further(views, config.quantities, root=config.path, allow_outside=config.allow_outside)


def assemble(config: DataConfig, views: Views) -> Scene:
    """A scene of parsed views: checks, decoding, compositing, splits, normalization. Raises InputError."""
    views = usable(config, views)
    pixels = read_pixels(decode_options(config), views)
    masks, depths = pixels.quantities.get("mask"), pixels.quantities.get("depth")
    scene = replace(
        outline(config, views, masks=masks, depths=depths),
        images=pixels.color,
        background=None if masks is None else background_color(config),
    )
    return scene.with_quantities(scaled(pixels.quantities, 1 / _scale(scene.world_from_scene)))


def outline(
    config: DataConfig,
    views: Views,
    *,
    masks: Sequence[UInt8] | None = None,
    depths: Sequence[Float32] | None = None,
) -> Scene:
    """The scene of sound views without pictures. Raises InputError.

    masks: [H, W] each. depths: [H, W] each, in world units. Without them the unit sphere is that of cameras and points.
    """
    if views.georeference is None:
        views = placed(views, move=False)
    splits = make_splits(views, holdout=config.holdout)
    room = _is_room(config, views)
    later = depths is None and "depth" in views.files  # when a room's sphere is found from them
    world_from_scene = _frame(config, views, splits["train"], masks=masks, depths=depths, room=room and not later)
    scene_from_world = normalize.inverse(world_from_scene)
    points = views.points
    if points is not None:
        points = points @ scene_from_world[:3, :3].T + scene_from_world[:3, 3]
    return Scene(
        cameras=views.cameras(scene_from_world, near=config.near).scaled(1 / config.downscale),
        images=(),
        masks=None,
        depths=None,
        points=None if points is None else points.astype(np.float32),
        splits=splits,
        world_from_scene=world_from_scene,
        names=views.names,
        up=_up(config, views),
        background=None,
        georeference=views.georeference,
        tracks=views.tracks,
        room=room,
        point_colors=views.point_colors,
    )


def _is_room(config: DataConfig, views: Views) -> bool:
    return views.room if config.region == "auto" else config.region == "room"


def background_color(config: DataConfig) -> Color:
    """The config's background as [r, g, b] in 0..1."""
    if isinstance(config.background, tuple):
        return config.background
    return (1.0, 1.0, 1.0) if config.background == "white" else (0.0, 0.0, 0.0)


def make_splits(views: Views, *, holdout: int) -> dict[str, npt.NDArray[np.int64]]:
    """Indices [N] of the views of each split: the data's own, or one in `holdout` for tests, as of `held_out`.

    Data with their own "val" but no "test" views are tested on "val".
    """
    if views.split is not None:
        label = np.array(views.split)
        splits = {name: np.flatnonzero(label == name) for name in ("train", "test", "val")}
        if len(splits["test"]) == 0:
            splits["test"] = splits["val"]
        return {name: index for name, index in splits.items() if name != "val" or len(index)}
    every = np.arange(len(views.names))
    test = held_out(views.names, views.camera_to_world[:, :3, 3], holdout) if holdout else every[:0]
    return {"train": np.setdiff1d(every, test), "test": test}


def said_of_splits(views: Views, splits: dict[str, npt.NDArray[np.int64]]) -> str:
    """How many views are for tests, and which."""
    test = [views.names[view] for view in splits["test"]]
    shown_ = ", ".join(test[:MOST_NAMED]) + (", ..." if len(test) > MOST_NAMED else "")
    return f"{len(test)} of them for tests{f' ({shown_})' if test else ''}"


def said_of_points(views: Views, sketch: Callable[[], Scene]) -> str:
    """How many of the sparse points that two views or more show the unit sphere holds; views without masks.

    Nothing is said where no point is shown twice, and where only pixels, of depths, say where the sphere is.
    """
    if views.points is None or views.depths is not None:
        return ""
    found = sketch()
    assert found.points is not None
    points = found.points[normalize.seen_twice(found.cameras, found.points.astype(np.float64))]
    if len(points) == 0:
        return ""
    held = (np.linalg.norm(points, axis=1) < 1).mean()
    return f"; the unit sphere holds {held:.1%} of {len(points)} sparse points that two views or more show"


def decode_options(config: DataConfig) -> DecodeOptions:
    return DecodeOptions(
        masks=config.masks,
        background=background_color(config),
        downscale=config.downscale,
        ram=cache.bytes_of(config.ram),
        cache=cache.folder_of(config.cache),
    )


def _frame(
    config: DataConfig,
    views: Views,
    train: npt.NDArray[np.int64],
    *,
    masks: Sequence[UInt8] | None,
    depths: Sequence[Float32] | None,
    room: bool,
) -> Float64:
    """world_from_scene: said by the config, by the format, or estimated from the training views."""
    if isinstance(config.center, tuple) and isinstance(config.radius, float):
        return normalize.similarity(config.center, config.radius)
    center = None if config.center == "auto" else config.center
    if views.world_from_scene is not None and center is None:
        own = views.world_from_scene
        return own if config.radius == "auto" else normalize.similarity(own[:3, 3], config.radius)
    chosen = train if len(train) else np.arange(len(views.names))
    # Estimated in a frame near the cameras: single precision is enough there, geo-referenced or not.
    positions = views.camera_to_world[chosen, :3, 3]
    local = normalize.similarity(positions.mean(axis=0), float(np.ptp(positions, axis=0).max()) or 1.0)
    to_local = normalize.inverse(local)
    cameras = views.cameras(to_local).scaled(1 / config.downscale)[chosen]
    middle = None if center is None else to_local[:3, :3] @ center + to_local[:3, 3]
    points = None if views.points is None else views.points @ to_local[:3, :3].T + to_local[:3, 3]
    if room:
        if depths is not None:
            scale = np.float32(_scale(local))
            points = normalize.depth_points(cameras, (depths[i] / scale for i in chosen))
        if points is None or len(points) == 0:
            raise InputError(f"{shown(views.source)} - got no depth or points - expected them in a room: data.radius")
        middle, radius = normalize.room_region(cameras, points, center=middle)
    else:
        if masks is not None:
            # Distances to large masks would take more memory than all pictures, and say no more.
            cameras = cameras.scaled(min(1.0, MASK_SIZE / int(cameras.size.max())))
            sizes = [(int(width), int(height)) for width, height in cameras.size]
            masks = [images.resized(masks[i], size) for i, size in zip(chosen, sizes, strict=True)]
        middle, radius = normalize.region(cameras, masks, points, center=middle)
    found = local @ normalize.similarity(middle, radius)
    return found if config.radius == "auto" else normalize.similarity(found[:3, 3], config.radius)


def _scale(matrix: Float64) -> float:
    return float(np.cbrt(np.linalg.det(matrix[:3, :3])))


def _up(config: DataConfig, views: Views) -> Float64:
    if config.up == "auto" and views.georeference is not None:
        return np.array([0.0, 0.0, 1.0])
    if config.up == "auto":
        return normalize.up_direction(views.camera_to_world, views.up)
    length = float(np.linalg.norm(config.up))
    if length == 0:
        raise InputError("data.up - got 0, 0, 0 - expected a direction")
    return np.array(config.up, dtype=np.float64) / length
