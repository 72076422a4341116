"""Scripts for schedulers, run with stand-ins for the scheduler's commands: what is started, and when again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from tests.support.sources import ROOT

SLURM = {"SLURM_JOB_ID": "4711", "SLURM_GPUS_ON_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu[01-02]",
         "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "2"}  # fmt: skip
# Stand-ins. What runs the training notes its words, waits for a signal where it is to, and ends as a run would.
STUBS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "scontrol": 'if [ $1 = show ]; then echo gpu01; echo gpu02; else echo "$@" >> "$NOTES.again"; fi',
    "pbsdsh": 'shift\nexec "$@"',
    "qsub": 'echo "$@" >> "$NOTES.again"',
    "python": 'trap \'mkdir -p "$RUN"; touch "$RUN/PREEMPTED"; exit $AFTER\' USR1 TERM\n'
    'printf "%s\\n" "$@" > "$NOTES.tmp"; mv "$NOTES.tmp" "$NOTES"\n'
    'if [ -n "$HANG" ]; then while :; do sleep 0.05; done; fi\nexit ${ENDS:-0}',
}
SCRIPTS = {
    "slurm/one_node.sbatch": ["configs/neus_hash.yaml", "{run}", "seed=1"],
    "slurm/several_nodes.sbatch": ["configs/neus_hash.yaml", "{run}", "seed=1"],
    "slurm/sweep.sbatch": ["{sweep}"],
    "pbs/several_nodes.pbs": [],
}
each_script = pytest.mark.parametrize("name", SCRIPTS)


class Launched:
    """A script under way, with stand-ins in its path."""

    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        self.notes, self.run = folder / "notes", folder / "run"
        for stub, text in STUBS.items():
            (folder / stub).write_text(f"#!/bin/bash\n{text}\n", "utf-8")
            (folder / stub).chmod(0o755)
        (folder / "nodes").write_text("node1\nnode1\nnode2\n", "utf-8")
        (folder / "sweep").write_text(f"configs/a.yaml\nconfigs/neus_hash.yaml output={self.run} seed=1\n", "utf-8")
        words = [word.format(run=self.run, sweep=folder / "sweep") for word in SCRIPTS[name]]
        after = "75" if "sweep" in name else "1"  # torchrun's code says nothing
        pbs = {"PBS_O_WORKDIR": str(ROOT), "PBS_JOBID": "991.head", "PBS_NODEFILE": str(folder / "nodes"),
               "CONFIG": "configs/neus_hash.yaml", "OUTPUT": str(self.run), "KEYS": "seed=1"}  # fmt: skip
        known = {"PATH": f"{folder}:{os.environ['PATH']}", "NOTES": str(self.notes), "RUN": str(self.run),
                 "PYTHON": str(folder / "python"), "AFTER": after}  # fmt: skip
        command = ["bash", str(ROOT / "scripts" / name), *words]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**known, **SLURM, **pbs, **environment})

    def words(self) -> list[str]:
        deadline = time.monotonic() + 60
        while not self.notes.exists():
            assert time.monotonic() < deadline and self.process.poll() in (None, 0, 3)
            time.sleep(0.02)
        return self.notes.read_text("utf-8").split()

    def again(self) -> str:
        file = self.notes.with_suffix(".again")
        return file.read_text("utf-8") if file.exists() else ""


@each_script
def test_what_is_started(name: str, tmp_path: Path) -> None:
    launched = Launched(name, tmp_path)
    words = launched.words()
    assert launched.process.wait(60) == 0 and not launched.again()
    if words[0] == "-m":
        options = get_args_parser().parse_args(words[2:])  # torchrun knows each of them
        assert options.signals_to_handle == "SIGTERM,SIGINT,SIGUSR1" and int(options.nproc_per_node) == 4
        assert options.max_restarts >= 3 and options.training_script == "train.py"
        words = [options.training_script, *options.training_script_args]
        if "several" in name:
            assert options.nnodes == "1:2" and options.rdzv_backend == "c10d"
            assert options.rdzv_endpoint == ("node1:20991" if "pbs" in name else "gpu01:24711")
    assert words == ["train.py", "configs/neus_hash.yaml", f"output={launched.run}", "seed=1"]


@each_script
def test_a_signal_queues_the_job_again(name: str, tmp_path: Path) -> None:
    launched = Launched(name, tmp_path, HANG="1")
    launched.words()
    launched.process.send_signal(signal.SIGTERM if "pbs" in name else signal.SIGUSR1)
    assert launched.process.wait(60) == 0
    expected = "several_nodes.pbs" if "pbs" in name else "4700_2" if "sweep" in name else "requeue 4711"
    assert expected in launched.again() and launched.again().count("\n") == 1


@each_script
def test_a_failure_is_not_queued_again(name: str, tmp_path: Path) -> None:
    launched = Launched(name, tmp_path, ENDS="3")
    assert launched.process.wait(60) == 3 and not launched.again()


def test_a_sweep_without_the_line_says_so(tmp_path: Path) -> None:
    launched = Launched("slurm/sweep.sbatch", tmp_path, SLURM_ARRAY_TASK_ID="9")
    assert launched.process.wait(60) == 2 and not launched.notes.exists()


def test_the_job_of_kubernetes_fits_itself() -> None:
    service, job = yaml.safe_load_all((ROOT / "scripts/kubernetes/job.yaml").read_text("utf-8"))
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = get_args_parser().parse_args(container["command"][3:])
    assert container["command"][:3] == ["python", "-m", "torch.distributed.run"]
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"] == 2
    assert options.nnodes == f"1:{spec['completions']}"
    assert int(options.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    # Pods of an indexed job are called JOB-INDEX, and found as that in their subdomain.
    name, domain = job["metadata"]["name"], pod["subdomain"]
    assert service["metadata"]["name"] == domain and service["spec"]["selector"] == {"job-name": name}
    assert options.rdzv_endpoint == f"{name}-0.{domain}:29400" and service["spec"]["clusterIP"] == "None"
    assert pod["terminationGracePeriodSeconds"] > options.shutdown_timeout
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
