"""The process in which pycolmap runs, under limits: python -P worker.py JOB.json. Imports nothing of ours.

pycolmap is native code that reads other people's pictures: what it does to its process must not reach ours.
Progress goes to standard output, a line `STAGE DONE TOTAL` at a time.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

AT_ONCE = 8  # pictures or blocks of pairs between two lines of progress
PAIRS_AT_ONCE = 50
LEAST_MODEL = 3  # photographs
# With so many photographs per camera the principal point is adjusted too (on a surveyed set of eleven that halves
# the errors of the centers), unless it wanders off by more than this share of the longer side.
POLISHED, MOST_WANDERING = 8, 0.04


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    import pycolmap

    pycolmap.set_random_seed(0)
    extract(pycolmap, job)
    match(pycolmap, job)
    build(pycolmap, job)


def say(stage: str, done: int, total: int) -> None:
    """One line of progress."""
    print(stage, done, total, flush=True)


def extract(pycolmap: Any, job: dict[str, Any]) -> None:
    """Features of all pictures; those that one lens took share a camera."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu, options.max_image_size = job["threads"], False, job["size"]
    options.sift.max_num_features = job["features"]
    done, total = 0, len(job["names"])
    for members, parameters in job["groups"]:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = job["lens"]
        if parameters:
            reader.camera_params = ",".join(map(repr, parameters))
        for start in range(0, len(members), AT_ONCE):
            names = members[start : start + AT_ONCE]
            pycolmap.extract_features(
                job["database"], job["images"], image_names=names, camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader, extraction_options=options, device=pycolmap.Device.cpu,
            )  # fmt: skip
            reader.existing_camera_id = camera_of(pycolmap, job["database"], names, reader.existing_camera_id)
            done += len(names)
            say("features", done, total)


def camera_of(pycolmap: Any, database: str, names: list[str], otherwise: int) -> int:
    """The camera that a group's first pictures were given."""
    opened = pycolmap.Database.open(database)
    try:
        found = [image.camera_id for image in opened.read_all_images() if image.name in names]
    finally:
        opened.close()
    return found[0] if found else otherwise


def match(pycolmap: Any, job: dict[str, Any]) -> None:
    """Matches of the chosen pairs, verified."""
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads, options.use_gpu = job["threads"], False
    pairing = pycolmap.ImportedPairingOptions()
    listed = Path(job["database"]).with_name("pairs.txt")
    pairing.match_list_path = listed
    for start in range(0, len(job["pairs"]), PAIRS_AT_ONCE):
        block = job["pairs"][start : start + PAIRS_AT_ONCE]
        listed.write_text("".join(f"{a} {b}\n" for a, b in block), "utf-8")
        pycolmap.match_image_pairs(
            job["database"], matching_options=options, pairing_options=pairing, device=pycolmap.Device.cpu
        )
        say("pairs", start + len(block), len(job["pairs"]))


def build(pycolmap: Any, job: dict[str, Any]) -> None:
    """Every model that the photographs give."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.min_model_size = job["threads"], 0, LEAST_MODEL
    options.mapper.random_seed = options.triangulation.random_seed = 0
    total = len(job["names"])
    seen = 0

    def one_more() -> None:
        nonlocal seen
        seen += 1
        say("cameras", min(seen, total), total)

    models = pycolmap.incremental_mapping(
        job["database"], job["images"], job["models"], options=options, next_image_callback=one_more
    )
    for number in models:
        folder = Path(job["models"]) / str(number)
        polish(pycolmap, folder, job["threads"])
        rename(pycolmap, folder, job["names"])


def polish(pycolmap: Any, folder: Path, threads: int) -> None:
    """Adjust a model once more, with the principal points."""
    model = pycolmap.Reconstruction(folder)
    if model.num_reg_images() < POLISHED * model.num_cameras():
        return
    before = {number: (camera.principal_point_x, camera.principal_point_y) for number, camera in model.cameras.items()}
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = True
    options.ceres.solver_options.num_threads = threads
    pycolmap.bundle_adjustment(model, options)
    for number, camera in model.cameras.items():
        x, y = camera.principal_point_x - before[number][0], camera.principal_point_y - before[number][1]
        if not max(abs(x), abs(y)) < MOST_WANDERING * max(camera.width, camera.height):
            return
    model.write(folder)


def rename(pycolmap: Any, folder: Path, names: dict[str, str]) -> None:
    """Give the pictures of a model the names that they have outside."""
    model = pycolmap.Reconstruction(folder)
    for image in model.images.values():
        image.name = names[image.name]
    model.write(folder)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
