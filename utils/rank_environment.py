"""Which process of how many this one is, and where the first one listens: what launchers write into the environment.

Looked at in this order: torchrun and whatever writes the same names (RANK, WORLD_SIZE, ...), a step of srun, Open MPI,
MPICH and Intel MPI (PMI). Names that are set for a job as a whole, as in a batch script or an interactive shell, start
nothing: a process that was not started by the launcher runs alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import InputError
from utils.host_lists import expand_hosts, hosts_of_file

FIRST_PORT, PORTS = 20_000, 10_000  # where a port is chosen by the job's number
LAST_PORT = 65_535


@dataclass(frozen=True)
class RankEnvironment:
    """What a launcher says. rank: 0 ... world - 1; local_rank: within the machine; address, port: of the first rank.

    launcher: its name, for messages. restarts: whether it starts the ranks anew when one is lost.
    """

    rank: int
    world: int
    local_rank: int
    address: str
    port: int
    launcher: str
    restarts: bool = False


@dataclass(frozen=True)
class _Launcher:
    """The names by which a launcher says rank, world and local rank; job: those by which a port is chosen."""

    name: str
    rank: str
    world: str
    local_rank: str
    job: tuple[str, ...] = ()


_TORCHRUN = _Launcher("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK")
_SRUN = _Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ("SLURM_JOB_ID", "SLURM_JOBID"))
_OPEN_MPI = _Launcher(
    "mpirun (Open MPI)",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    ("PBS_JOBID", "SLURM_JOB_ID", "LSB_JOBID", "JOB_ID", "PMIX_NAMESPACE"),
)
_PMI = _Launcher(
    "mpiexec (PMI)", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", ("PBS_JOBID", "SLURM_JOB_ID", "LSB_JOBID", "PMI_ID")
)


def read_ranks(environment: Mapping[str, str]) -> RankEnvironment | None:
    """What the environment says; None for a process that runs alone.

    Raises InputError, with names and values, where it is incomplete or contradicts itself.
    """
    launcher = _launcher(environment)
    if launcher is None:
        return None
    rank, world, local_rank = _numbers(environment, launcher)
    if rank >= world:
        raise InputError(
            f"environment: {launcher.rank}={rank} - expected less than {launcher.world}={world}, from {launcher.name}"
        )
    if world == 1 and launcher is not _TORCHRUN:
        return None
    address, port = ("", 0) if world == 1 else (_address(environment, launcher, world), _port(environment, launcher))
    elastic = "TORCHELASTIC_RUN_ID" in environment
    return RankEnvironment(rank, world, local_rank, address, port, launcher.name, restarts=elastic)


def _launcher(environment: Mapping[str, str]) -> _Launcher | None:
    if _TORCHRUN.rank in environment:
        return _TORCHRUN
    # A batch script has SLURM_PROCID=0 too; what srun starts is a step with a number of tasks.
    if environment.get("SLURM_STEP_ID", "").isdigit() and _SRUN.rank in environment and _SRUN.world in environment:
        return _SRUN
    return next((known for known in (_OPEN_MPI, _PMI) if known.rank in environment), None)


def _numbers(environment: Mapping[str, str], launcher: _Launcher) -> tuple[int, int, int]:
    names = [launcher.rank, launcher.world, launcher.local_rank]
    texts = [environment.get(name, "") for name in names]
    if not texts[2] and ("KUBERNETES_SERVICE_HOST" in environment or texts[:2] == ["0", "1"]):
        texts[2] = "0"  # a pod sees its own GPUs alone
    wrong = [f"{name}={text}" for name, text in zip(names, texts, strict=True) if not text.isdigit()]
    if wrong:
        raise InputError(f"environment: {', '.join(wrong)} - expected whole numbers, as {launcher.name} sets them")
    rank, world, local_rank = (int(text) for text in texts)
    return rank, world, local_rank


def _address(environment: Mapping[str, str], launcher: _Launcher, world: int) -> str:
    """Where the first rank listens: as it was said, else the first host of the scheduler's list."""
    if environment.get("MASTER_ADDR"):
        return environment["MASTER_ADDR"]
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if launcher is not _TORCHRUN and environment.get(name):
            try:
                return expand_hosts(environment[name])[0]
            except InputError as error:
                raise InputError(f"environment: {name}: {error}") from None
    if launcher is not _TORCHRUN and environment.get("PBS_NODEFILE"):
        return hosts_of_file(Path(environment["PBS_NODEFILE"]))[0]
    if environment.get("LSB_HOSTS") and launcher is not _TORCHRUN:
        return environment["LSB_HOSTS"].split()[0]
    if environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == str(world):
        return "127.0.0.1"
    raise InputError(
        f"environment: MASTER_ADDR= - not set by {launcher.name} - expected the host of the first rank"
    )


def _port(environment: Mapping[str, str], launcher: _Launcher) -> int:
    """Where the first rank listens: as it was said, else a number that all processes of a job find alike."""
    text = environment.get("MASTER_PORT", "")
    if text:
        if not text.isdigit() or not 1 <= int(text) <= LAST_PORT:
            raise InputError(f"environment: MASTER_PORT={text} - expected a port from 1 to {LAST_PORT}")
        return int(text)
    job = next((environment[name] for name in launcher.job if environment.get(name)), None)
    if job is None:
        raise InputError("environment: MASTER_PORT= - expected the port on which the first rank listens")
    step = environment.get("SLURM_STEP_ID", "") if launcher is _SRUN else ""
    return FIRST_PORT + zlib.crc32(f"{job}.{step}".encode()) % PORTS
