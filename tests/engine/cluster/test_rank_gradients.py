"""The gradient of several ranks is that of one process with all the rays, for every method."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dataio.batches import PixelSampler, RayBatch
from engine import build, experiment
from engine.cluster.exchange import Exchange
from engine.cluster.shares import share_of
from models.losses import smoothness
from models.objective import Objective
from tests.engine.test_training import SPHERE
from tests.support.sources import ROOT
from tests.support.two_ranks import rank_environments
from utils import distributed

REDUCED = sorted(f"reduced/{path.stem}" for path in (ROOT / "configs/reduced").glob("*.yaml"))
GRIDS = ["neus_hash", "neus_hash_open", "volsdf_hash", "unisurf_hash", "nerf_hash", "nerf_hash_open"]
DATA = ["data={type: procedural, views: 4, test_views: 1, size: 24}", "train.rays=64", "device=cpu"]
# Of float32 sums in another order, relative to the parameter's largest gradient, and to that of all.
CLOSE, CLOSE_OF_ALL = 2e-5, 3e-6
WORKER = """
import sys, torch
torch.set_num_threads(1)
from tests.engine.cluster.test_rank_gradients import write_gradients
from utils.errors import run_script
run_script(lambda: write_gradients(sys.argv[1], sys.argv[2:]))
"""


def write_gradients(out: str, configs: list[str]) -> None:
    """One rank: its share of each config's step; the first writes the averaged gradients."""
    ranks, found = distributed.setup("cpu"), {}
    for config in configs:
        objective, batch = objective_and_batch(config, ranks)
        exchange = Exchange(objective) if ranks.world > 1 else None
        loss = objective(batch).loss
        objective.share_counts()
        loss.backward()
        if exchange:
            exchange()
        found[config] = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    if ranks.is_main:
        torch.save(found, out)
    distributed.barrier()
    distributed.cleanup()


def objective_and_batch(config: str, ranks: distributed.Ranks) -> tuple[Objective, RayBatch]:
    """A model without jitter, the same in every process, and a rank's share of a step's rays.

    Points beside the surface, which ranks draw for themselves, lie on the same side of it in all.
    """
    smoothness.uniform = lambda shape, device: torch.full(shape, 0.75, device=device)
    path = ROOT / "configs" / f"{config}.yaml"
    keys = [*DATA, SPHERE] if config in GRIDS and not config.startswith("nerf") else DATA
    read = experiment.read_config(path, keys)
    drawn = [f"losses.{name}.random_points=0" for name, loss in read.losses.items() if hasattr(loss, "random_points")]
    read = experiment.read_config(path, [*keys, *drawn])
    scene, share = read.data.load(), share_of(read, ranks, rays=read.train.first_rays)
    objective = build.build_objective(read, scene, torch.device("cpu"))
    objective.update(0.0, 0)
    objective.eval()
    with PixelSampler(scene, rays=share.own, seed=0, before=share.before, total=share.total) as sampler:
        batch = next(sampler)
    objective(batch).loss.backward()
    for parameter in objective.parameters():
        parameter.requires_grad_(parameter.grad is not None)  # without jitter there is no loss on proposals
    objective.zero_grad()
    return objective, batch


def gradients(folder: Path, world: int, configs: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Config and parameter -> gradient, of so many processes."""
    out = folder / f"{world}.pt"
    command = [sys.executable, "-c", WORKER, str(out), *configs]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for environment in rank_environments(world)]
    assert [process.wait(550) for process in processes] == [0] * world
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize(
    ("world", "configs"),
    [
        pytest.param(2, ["reduced/volsdf", "reduced/nerf"], id="share"),
        pytest.param(2, REDUCED, id="2", marks=pytest.mark.slow),
        pytest.param(4, REDUCED, id="4", marks=pytest.mark.slow),
        pytest.param(2, GRIDS, id="2 on grids", marks=pytest.mark.slow),
        pytest.param(4, GRIDS, id="4 on grids", marks=pytest.mark.slow),
    ],
)
def test_ranks_have_the_gradient_of_one(world: int, configs: list[str], tmp_path: Path) -> None:
    alone, together = gradients(tmp_path, 1, configs), gradients(tmp_path, world, configs)
    found = {config: difference(alone[config], together[config]) for config in configs}
    print(json.dumps(found, indent=1))
    assert all(each < CLOSE and of_all < CLOSE_OF_ALL for each, of_all in found.values()), found


def difference(alone: dict[str, torch.Tensor], together: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Largest difference relative to the largest gradient of its parameter, and to that of all parameters."""
    assert alone.keys() == together.keys() and alone
    largest = max(float(grad.abs().max()) for grad in alone.values())
    parts = {name: float((grad - together[name]).abs().max()) for name, grad in alone.items()}
    each = max(parts[name] / max(float(alone[name].abs().max()), 1e-12) for name in parts)
    return each, max(parts.values()) / largest
