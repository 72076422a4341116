"""What launchers write into the environment, as recorded or as their manuals say it: the right rank in each."""

from pathlib import Path

import pytest

from utils.errors import InputError
from utils.host_lists import expand_hosts, hosts_of_file
from utils.rank_environment import FIRST_PORT, PORTS, RankEnvironment, read_ranks

DERIVED = range(FIRST_PORT, FIRST_PORT + PORTS)


def torchrun(rank: int, world: int, local: int, address: str = "127.0.0.1", port: int = 29500) -> dict[str, str]:
    return {
        "LOCAL_RANK": str(local),
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "GROUP_RANK": "0",
        "ROLE_RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": "1",
    }


def slurm(procid: int, tasks: int, localid: int, nodes: str, *, job: str = "4711", step: str = "0") -> dict[str, str]:
    """A task of srun."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_JOBID": job,
        "SLURM_STEP_ID": step,
        "SLURM_STEPID": step,
        "SLURM_NTASKS": str(tasks),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_PROCID": str(procid),
        "SLURM_LOCALID": str(localid),
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_CPUS_ON_NODE": "8",
    }


def batch_step(tasks: int, nodes: str) -> dict[str, str]:
    """The batch script itself, or the shell of salloc: a job with tasks, none of which this process is."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_NODEID": "0",
        "SLURM_TASKS_PER_NODE": "4(x2)",
    }


def open_mpi(rank: int, world: int, local: int, size: int, **more: str) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(world),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(size),
        "PMIX_NAMESPACE": "prterun-cn1-4711@1",
        "PMIX_RANK": str(rank),
        **more,
    }


NODES = "{nodes}"  # stands for a file of hosts
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
# What the launcher wrote; rank, world, local rank, address, port (None: chosen by the job's number), or None: alone.
RECORDED = {
    "a shell": ({}, None),
    "torchrun, one of two": (torchrun(1, 2, 1), (1, 2, 1, "127.0.0.1", 29500)),
    "torchrun, standalone on a chosen port": (torchrun(0, 2, 0, "localhost", 41233), (0, 2, 0, "localhost", 41233)),
    "torchrun, second machine": (torchrun(5, 8, 1, "gpu01", 29400), (5, 8, 1, "gpu01", 29400)),
    "torchrun, one rank": (torchrun(0, 1, 0), (0, 1, 0, "", 0)),
    "torchrun, an address of IPv6": (torchrun(0, 2, 0, "fd00::12"), (0, 2, 0, "fd00::12", 29500)),
    "torchrun within a task of srun": (
        slurm(1, 2, 0, "gpu[01-02]") | torchrun(4, 8, 0, "gpu01"),
        (4, 8, 0, "gpu01", 29500),
    ),
    "srun, gpu[01-04]": (slurm(9, 16, 1, "gpu[01-04]"), (9, 16, 1, "gpu01", None)),
    "srun, cn1": (slurm(3, 4, 3, "cn1"), (3, 4, 3, "cn1", None)),
    "srun, a[1,3-5]-ib": (slurm(2, 4, 0, "a[1,3-5]-ib"), (2, 4, 0, "a1-ib", None)),
    "srun, two kinds of machines": (slurm(1, 3, 1, "login2,gpu[7-8]"), (1, 3, 1, "login2", None)),
    "srun, racks": (slurm(0, 8, 0, "r[1-2]n[01-04]"), (0, 8, 0, "r1n01", None)),
    "srun, wide numbers": (slurm(0, 2, 0, "nid[001024-001025]"), (0, 2, 0, "nid001024", None)),
    "srun, a domain": (slurm(1, 2, 0, "gpu-[3,9].cluster.example"), (1, 2, 0, "gpu-3.cluster.example", None)),
    "srun, an address that was set": (
        slurm(1, 2, 0, "cn[1-2]") | {"MASTER_ADDR": "cn1-ib", "MASTER_PORT": "3000"},
        (1, 2, 0, "cn1-ib", 3000),
    ),
    "srun, a job of an array": (
        slurm(1, 2, 1, "cn7") | {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "11"},
        (1, 2, 1, "cn7", None),
    ),
    "srun, a second step": (slurm(1, 2, 1, "cn7", step="3"), (1, 2, 1, "cn7", None)),
    "srun, one task": (slurm(0, 1, 0, "cn1"), None),
    "a batch script of SLURM": (batch_step(8, "gpu[01-02]"), None),
    "the shell of salloc": (
        batch_step(4, "gpu01") | {"SLURM_STEP_ID": "interactive", "SLURM_STEP_NUM_TASKS": "1"},
        None,
    ),
    "mpirun, one machine": (open_mpi(1, 2, 1, 2), (1, 2, 1, "127.0.0.1", None)),
    "mpirun in a job of PBS": (
        open_mpi(6, 8, 2, 4, PBS_JOBID="991.head", PBS_NODEFILE=NODES),
        (6, 8, 2, "node12", None),
    ),
    "mpirun in a job of SLURM": (open_mpi(1, 4, 1, 2, **batch_step(4, "gpu[1-2]")), (1, 4, 1, "gpu1", None)),
    "mpirun in a job of LSF": (
        open_mpi(3, 4, 1, 2, LSB_JOBID="88", LSB_HOSTS="hostA hostA hostB hostB"),
        (3, 4, 1, "hostA", None),
    ),
    "mpirun, an address that was set": (
        open_mpi(2, 4, 0, 2, MASTER_ADDR="n1", MASTER_PORT="29500"),
        (2, 4, 0, "n1", 29500),
    ),
    "mpiexec of Intel in a job of PBS": (
        {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "PBS_JOBID": "992.head", "PBS_NODEFILE": NODES},
        (3, 4, 1, "node12", None),
    ),
    "a script of PBS": ({"PBS_JOBID": "992.head", "PBS_NODEFILE": NODES, "PBS_NUM_PPN": "4"}, None),
    "a pod of Kubeflow": (
        KUBERNETES | {"RANK": "2", "WORLD_SIZE": "3", "MASTER_ADDR": "train-master-0", "MASTER_PORT": "23456"},
        (2, 3, 0, "train-master-0", 23456),
    ),
    "torchrun in an indexed job of Kubernetes": (
        KUBERNETES | {"JOB_COMPLETION_INDEX": "1"} | torchrun(3, 4, 1, "train-0.train"),
        (3, 4, 1, "train-0.train", 29500),
    ),
    "a pod alone": (KUBERNETES | {"JOB_COMPLETION_INDEX": "0"}, None),
    "AzureML": (
        {
            "RANK": "1",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "NODE_RANK": "0",
            "MASTER_ADDR": "10.0.0.4",
            "MASTER_PORT": "6105",
        },
        (1, 4, 1, "10.0.0.4", 6105),
    ),
    "SageMaker's torchrun": (torchrun(8, 16, 0, "algo-1", 7777), (8, 16, 0, "algo-1", 7777)),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_environments(name: str, tmp_path: Path) -> None:
    environment, expected = RECORDED[name]
    nodes = tmp_path / "nodes"
    nodes.write_text("node12\nnode12\nnode12\nnode12\nnode13\nnode13\n", "utf-8")
    found = read_ranks({key: text.replace(NODES, str(nodes)) for key, text in environment.items()})
    if expected is None:
        assert found is None
        return
    assert found is not None
    rank, world, local, address, port = expected
    assert (found.rank, found.world, found.local_rank, found.address) == (rank, world, local, address)
    assert found.port in DERIVED if port is None else found.port == port
    assert found.restarts == ("TORCHELASTIC_RUN_ID" in environment)


def test_there_are_thirty() -> None:
    assert len(RECORDED) >= 30


def test_tasks_of_a_step_agree_on_a_port_and_other_steps_have_their_own() -> None:
    def port(rank: int, job: str, step: str) -> int:
        found = read_ranks(slurm(rank, 4, 0, "cn[1-4]", job=job, step=step))
        assert isinstance(found, RankEnvironment)
        return found.port

    assert len({port(rank, "4711", "0") for rank in range(4)}) == 1
    assert len({port(0, job, step) for job in ("4711", "4712") for step in ("0", "1")}) == 4


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"RANK": "0"}, "WORLD_SIZE=, LOCAL_RANK= - expected whole numbers, as torchrun sets them"),
        (torchrun(0, 2, 0) | {"MASTER_PORT": "http"}, "MASTER_PORT=http - expected a port from 1 to 65535"),
        (torchrun(0, 2, 0) | {"MASTER_PORT": "70000"}, "MASTER_PORT=70000"),
        (torchrun(0, 2, 0) | {"MASTER_ADDR": ""}, "MASTER_ADDR= - not set by torchrun"),
        (torchrun(2, 2, 0), "RANK=2 - expected less than WORLD_SIZE=2"),
        (slurm(4, 4, 0, "cn1"), "SLURM_PROCID=4 - expected less than SLURM_STEP_NUM_TASKS=4, from srun"),
        (slurm(0, 4, 0, "cn[1-"), r"SLURM_STEP_NODELIST: got 'cn\[1-' - expected a list of hosts"),
        (open_mpi(0, 4, 0, 2), "MASTER_ADDR= - not set by mpirun"),
        (open_mpi(0, 4, 0, 2, PBS_NODEFILE="/nowhere/nodes"), "/nowhere/nodes: the scheduler.s list of hosts"),
    ],
)
def test_what_contradicts_itself_is_named(environment: dict[str, str], what: str) -> None:
    with pytest.raises(InputError, match=what):
        read_ranks(environment)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("cn1", ["cn1"]),
        ("gpu[01-04]", ["gpu01", "gpu02", "gpu03", "gpu04"]),
        ("a[1,3-5]-ib", ["a1-ib", "a3-ib", "a4-ib", "a5-ib"]),
        ("gpu[08-10],login", ["gpu08", "gpu09", "gpu10", "login"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("x[0-6:2]", ["x0", "x2", "x4", "x6"]),
        ("x[9-11]", ["x9", "x10", "x11"]),
        ("b,a", ["b", "a"]),
    ],
)
def test_lists_of_hosts(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a[",
        "a[]",
        "a[1-]",
        "a[x]",
        "a[3-1]",
        "a]1[",
        "a[0-999999999]",
        "a[[1]]",
        "a b",
        "$(x)",
        "a[1-9:0]",
        "a[1-900]b[1-900]",
    ],
)
def test_what_is_no_list_of_hosts(text: str) -> None:
    with pytest.raises(InputError, match="expected a list of hosts like"):
        expand_hosts(text)


def test_a_file_of_hosts_without_any_is_named(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("\n \n", "utf-8")
    with pytest.raises(InputError, match="got no host"):
        hosts_of_file(tmp_path / "nodes")
