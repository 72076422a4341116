"""A flight straight down over made-up ground, trained on with no keys set: how far is the height off?

The ground is a height field with houses. The photographs are cast by rays at it, with places in their EXIF; poses and
sparse points are a COLMAP model in a frame of its own, points with noise, some of them strays. What is trained on is
what a user of raw photographs has once their poses are found.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.time_to_quality import ended, script
from dataio.georeference import Georeference
from utils.errors import run_script

if TYPE_CHECKING:
    import trimesh

    from dataio.cameras import Cameras

EXAMPLE = """examples:
  python -m benchmarks.nadir_flight --minutes 3
  python -m benchmarks.nadir_flight --minutes 3 --wobble 2 --keep runs/flight

height_share: the median error of the height, as a share of the height of the flight; where two
photographs or more show the ground. covered: the share of that ground that the mesh has."""
Floats = NDArray[np.float64]

ROWS, COLUMNS, HEIGHT = 8, 6, 100.0  # photographs, and meters above the ground
SPACING = 20.0, 25.0  # meters along and across
SIZE, FOCAL = (640, 480), 500.0  # pixels
MIDDLE = 70.0, 62.5  # of the flight, meters
HALF = 160.0  # of the ground's side, meters
CELL, GRAIN = 1.0, 0.25  # meters between heights, between colors
HOUSES, HOUSE = 24, (6.0, 6.0)  # how many; half of a side and height, meters, at the most
POINTS, STRAYS = 4000, 160
POINT_NOISE, PLACE_NOISE, PIXEL_NOISE = 0.15, 0.5, 0.5  # meters, meters, pixels
ORIGIN = 47.25, 8.5, 480.0  # latitude and longitude in degrees, meters


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", default="configs/neus_hash_aerial.yaml", metavar="FILE", help="default: neus_hash_aerial")
    add("--minutes", type=float, default=3.0, metavar="M", help="of training; default: 3")
    add("--wobble", type=float, default=1.5, metavar="D", help="degrees, of the cameras; default: 1.5")
    add("--resolution", type=int, default=256, metavar="N", help="of the mesh; default: 256")
    add("--keep", type=Path, metavar="FOLDER", help="keep data and run there; default: they are dropped")
    args = parser.parse_intermixed_args()
    budget = [f"train.minutes={args.minutes}", f"device={args.device}", *args.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        found = measure(args.config, Flight.over(Ground.made(), args.wobble), folder, budget, args.resolution)
    return machine.finish(found, args.out, "nadir_flight")


@dataclass(frozen=True)
class Ground:
    """A height field over a square, meters, z up.

    height: [N, N], color: [M, M, 3] in [0, 1], by row (y) and column (x), the first and last at the square's borders.
    """

    height: Floats
    color: Floats

    @staticmethod
    def made(seed: int = 0) -> Ground:
        """Hills, houses with flat roofs, and a texture of several grains."""
        random = np.random.default_rng(seed)
        height = 4.0 * _waves(random, int(2 * HALF / CELL) + 1, (40.0, 15.0))
        axis = np.linspace(-HALF, HALF, len(height))
        for x, y in random.uniform(-0.6 * HALF, 0.6 * HALF, (HOUSES, 2)):
            side, tall = random.uniform(0.5, 1.0, 2) * HOUSE
            within = (np.abs(axis - x)[None] < side) & (np.abs(axis - y)[:, None] < side)
            height[within] = height[within].mean() + tall
        grains = [_waves(random, int(2 * HALF / GRAIN) + 1, (60.0, 12.0, 3.0, 1.2)) for _ in range(3)]
        return Ground(height, np.clip(0.5 + 0.09 * np.stack(grains, axis=-1), 0, 1))

    def mesh(self) -> trimesh.Trimesh:
        """Two triangles per cell, around `MIDDLE`."""
        import trimesh

        count = len(self.height)
        axis = np.linspace(-HALF, HALF, count)
        x, y = np.meshgrid(axis + MIDDLE[0], axis + MIDDLE[1])
        corner = (np.arange(count - 1)[:, None] * count + np.arange(count - 1)).ravel()
        right, above = corner + 1, corner + count
        faces = np.concatenate([np.stack([corner, right, above], -1), np.stack([right, above + 1, above], -1)])
        return trimesh.Trimesh(np.stack([x, y, self.height], -1).reshape(-1, 3), faces, process=False)

    def at(self, places: Floats) -> Floats:
        """Heights [K] at places [K, 2], meters."""
        return self._look_up(self.height, places)

    def colors(self, places: Floats) -> Floats:
        """Colors [K, 3] at places [K, 2], meters."""
        return np.stack([self._look_up(self.color[..., channel], places) for channel in range(3)], axis=-1)

    @staticmethod
    def _look_up(table: Floats, places: Floats) -> Floats:
        from scipy.ndimage import map_coordinates

        at = (places - MIDDLE + HALF) / (2 * HALF) * (len(table) - 1)
        return np.asarray(map_coordinates(table, at.T[::-1], order=1, mode="nearest"))


def _waves(random: np.random.Generator, count: int, lengths: tuple[float, ...]) -> Floats:
    """[N, N] smooth noise of unit variance per length in meters, over the whole ground."""
    from scipy.ndimage import fourier_gaussian

    total = np.zeros((count, count))
    for length in lengths:
        waves = np.fft.rfft2(random.normal(size=(count, count)))
        noise = np.fft.irfft2(fourier_gaussian(waves, length / (2 * HALF) * count / 3, n=count), s=(count, count))
        total += noise / noise.std()
    return total


@dataclass(frozen=True)
class Flight:
    """Ground and cameras above it, meters, z up; sparse points [P, 3], of which the last `STRAYS` are nothing's."""

    ground: Ground
    poses: Floats  # [C, 4, 4] camera to world
    points: Floats

    @staticmethod
    def over(ground: Ground, wobble: float, seed: int = 3) -> Flight:
        """Rows of photographs straight down but for a wobble in degrees."""
        from scipy.spatial.transform import Rotation

        random = np.random.default_rng(seed)
        along, across = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
        count = ROWS * COLUMNS
        poses = np.tile(np.eye(4), (count, 1, 1))
        turns = Rotation.from_rotvec(wobble * random.normal(size=(count, 3)), degrees=True).as_matrix()
        poses[:, :3, :3] = np.diag([1.0, -1.0, -1.0]) @ turns
        high = HEIGHT + random.normal(size=count)
        poses[:, :3, 3] = np.stack([SPACING[0] * along.ravel(), SPACING[1] * across.ravel(), high], axis=-1)
        places = MIDDLE + random.uniform(-0.62 * HALF, 0.62 * HALF, (POINTS, 2))
        points = np.column_stack([places, ground.at(places)]) + POINT_NOISE * random.normal(size=(POINTS, 3))
        strays = random.uniform([-200, -200, -60], [300, 300, 90], (STRAYS, 3))
        return Flight(ground, poses, np.concatenate([points, strays]))

    def cameras(self) -> Cameras:
        """The cameras, in the frame of the ground."""
        from dataio.cameras import Cameras

        return Cameras.make(self.poses, [FOCAL, FOCAL, SIZE[0] / 2, SIZE[1] / 2], SIZE)

    def pictures(self) -> list[NDArray[np.uint8]]:
        """What the cameras see, [H, W, 3] each; gray where that is beyond the ground."""
        import torch

        from models.kernels.rays.cast import Triangles

        mesh, cameras = self.ground.mesh(), self.cameras()
        surface = Triangles(
            torch.from_numpy(np.array(mesh.vertices, np.float32)), torch.from_numpy(np.array(mesh.faces, np.int32))
        )
        found = []
        for view in range(len(cameras)):
            grid = cameras.pixel_grid(view)
            rays = cameras.rays(torch.full((len(grid),), view), grid)
            t, _, _ = surface.cast(rays.origins, rays.directions, near=rays.near)
            hit = torch.isfinite(t).numpy()
            color = np.full((len(grid), 3), 0.5)
            color[hit] = self.ground.colors(rays.at(t)[hit][:, :2].double().numpy())
            found.append(np.rint(255 * color).astype(np.uint8).reshape(SIZE[1], SIZE[0], 3))
        return found


def write_flight(flight: Flight, folder: Path, seed: int = 5) -> Georeference:
    """Photographs with places in their EXIF, images/, and a COLMAP model, sparse/0, in a frame of its own.

    Returns where the flight's own frame is.
    """
    from PIL import Image
    from scipy.spatial.transform import Rotation

    from dataio import normalize


    random, origin = np.random.default_rng(seed), Georeference(*ORIGIN)
    centers = flight.poses[:, :3, 3]
    places = origin.geodetic(centers + PLACE_NOISE * random.normal(size=centers.shape))
    (folder / "images").mkdir(parents=True)
    for view, (picture, place) in enumerate(zip(flight.pictures(), places, strict=True)):
        Image.fromarray(picture).save(folder / "images" / name_of(view), quality=95, exif=exif_of(place))
    to_model = np.eye(4)
    to_model[:3, :3] = 0.05 * Rotation.random(random_state=seed).as_matrix()
    to_model[:3, 3] = 1.0, -2.0, 3.0
    points = flight.points @ to_model[:3, :3].T + to_model[:3, 3]
    write_model(folder / "sparse" / "0", normalize.moved(flight.poses, to_model), points, observations(flight, random))
    return origin


def name_of(view: int) -> str:
    return f"{view:03d}.jpg"


def exif_of(place: Floats) -> Any:
    """EXIF with a position, place: [3] latitude and longitude in degrees, altitude in meters."""
    from PIL import Image
    from PIL.ExifTags import IFD

    latitude, longitude, altitude = (float(number) for number in place)
    exif = Image.Exif()
    sides = {1: "N" if latitude >= 0 else "S", 3: "E" if longitude >= 0 else "W"}
    degrees = {2: (abs(latitude), 0.0, 0.0), 4: (abs(longitude), 0.0, 0.0), 5: b"\x00", 6: altitude}
    exif.get_ifd(IFD.GPSInfo).update({**sides, **degrees})
    return exif


Seen = tuple[NDArray[np.int64], Floats]


def observations(flight: Flight, random: np.random.Generator) -> list[Seen]:
    """For each camera the numbers [K] of the sparse points in its picture, and their pixels [K, 2], with noise."""
    import torch

    cameras, found = flight.cameras(), []
    for view in range(len(cameras)):
        pixels, depth = (x.double().numpy() for x in cameras.project(torch.from_numpy(flight.points).float(), view))
        inside = np.flatnonzero((depth > 0) & (pixels >= 0).all(1) & (pixels < SIZE).all(1))
        found.append((inside, pixels[inside] + PIXEL_NOISE * random.normal(size=(len(inside), 2))))
    return found


def write_model(folder: Path, poses: Floats, points: Floats, seen: list[Seen]) -> None:
    """COLMAP's text model of cameras [C, 4, 4] and points [P, 3] that were seen so."""
    from dataio.export import quaternion

    folder.mkdir(parents=True)
    tracks: list[list[str]] = [[] for _ in points]
    photos = []
    for view, (pose, (numbers, pixels)) in enumerate(zip(poses, seen, strict=True)):
        turn = pose[:3, :3].T
        words = " ".join(map(repr, [*quaternion(turn).tolist(), *(-turn @ pose[:3, 3]).tolist()]))
        photos.append(f"{view + 1} {words} 1 {name_of(view)}")
        photos.append(" ".join(f"{x:.2f} {y:.2f} {n + 1}" for n, (x, y) in zip(numbers, pixels, strict=True)))
        for place, number in enumerate(numbers):
            tracks[number].append(f"{view + 1} {place}")
    rows = [
        f"{number + 1} {x} {y} {z} 128 128 128 {PIXEL_NOISE} {' '.join(track)}"
        for number, ((x, y, z), track) in enumerate(zip(points.tolist(), tracks, strict=True))
        if len(track) > 1
    ]
    lens = f"1 PINHOLE {SIZE[0]} {SIZE[1]} {FOCAL} {FOCAL} {SIZE[0] / 2} {SIZE[1] / 2}"
    for name, lines in (("cameras", [lens]), ("images", photos), ("points3D", rows)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def measure(config: str, flight: Flight, folder: Path, budget: list[str], resolution: int) -> dict[str, Any]:
    """Everything the table shows. folder: of the data and the run. budget: overrides.

    Raises InputError for a wrong config, and when a script ends with an error.
    """
    from engine.run import Run
    from utils.distributed import choose_device

    origin = write_flight(flight, folder / "data")
    places = [f"data.path={json.dumps(str(folder / 'data'))}", f"output={json.dumps(str(folder / 'run'))}"]
    ended("train.py", script("train.py", config, *places, *budget))
    run = Run.open(folder / "run", "cpu")
    ended("extract_mesh.py", script("extract_mesh.py", str(run.folder), f"--resolution={resolution}"))
    score = heights(flight, origin, run.georeference, run.folder / "meshes" / "mesh.ply")
    about = {"config": Path(config).stem, "budget": budget, "steps": run.step, "resolution": resolution}
    device = choose_device(run.config.device)
    return {**machine.describe(device), **about, "flying_height": HEIGHT, **score}


def heights(flight: Flight, origin: Georeference, found: Georeference | None, mesh: Path) -> dict[str, float]:
    """How far a mesh in the frame of `found` is off the ground in that of `origin`, where two photographs show it.

    Raises InputError where the run has no place on Earth.
    """
    from utils.errors import InputError
    from utils.evaluation.height_metrics import compare_heights
    from utils.meshing.mesh import read_mesh

    if found is None:
        raise InputError("the run does not know where on Earth it is - expected the positions in the photographs")
    surface = read_mesh(mesh)
    surface.vertices = origin.enu(found.geodetic(np.asarray(surface.vertices)))
    score = compare_heights(surface, seen_ground(flight)).as_dict()
    return {**score, "height_share": score["height_median_error"] / HEIGHT}


def seen_ground(flight: Flight, apart: float = 1.0) -> Floats:
    """[K, 3] points on the ground, `apart` meters from one another, that two photographs or more show."""
    from dataio.normalize import seen_twice

    axis = np.arange(-HALF, HALF, apart) + apart / 2
    places = np.stack(np.meshgrid(axis + MIDDLE[0], axis + MIDDLE[1]), axis=-1).reshape(-1, 2)
    points = np.column_stack([places, flight.ground.at(places)])
    return np.asarray(points[seen_twice(flight.cameras(), points)])


if __name__ == "__main__":
    run_script(main)
