"""Too little memory of the host: known before the work where that can be, one line, and code 5."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dataio.formats.transforms import TransformsData
from dataio.pictures import images
from tests.engine.test_training import SMALL, SPHERE
from tests.support import made_data
from tests.support.sources import ROOT
from utils import memory
from utils.errors import memory_line, out_of_memory, run_script

MIB = 2**20


def allocated(bytes_: int) -> None:
    torch.zeros(bytes_, dtype=torch.uint8)


def test_torch_says_what_is_asked_of_the_host() -> None:
    with pytest.raises(RuntimeError) as caught:
        allocated(2**62)
    assert out_of_memory(caught.value)
    line = memory_line(caught.value, "less may help")
    assert line == "out of memory: 4,398,046,511,104 MiB were asked for - less may help"


@pytest.mark.parametrize(
    "error, said",
    [
        (MemoryError(), "out of memory - x"),
        (MemoryError("4 pictures\nand where"), "4 pictures - x"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory. - x"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory - x"),
        (RuntimeError("can't start new thread"), "can't start new thread - x"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "CUDA error: out of memory - x"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "CUDA error: CUBLAS_STATUS_ALLOC_FAILED - x"),
    ],
)
def test_errors_of_memory_are_known(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    assert out_of_memory(error) and memory_line(error, "x") == said
    with pytest.raises(SystemExit) as ended:
        run_script(main, memory="x")
    assert ended.value.code == 5 and capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes"), RuntimeError("CUDA error: capture"), OSError(errno.EIO, "no"), ValueError("memory")],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not out_of_memory(error)


def in_child(action: Callable[[], None]) -> int:
    """The exit code of an action in a process of its own; 1 for an exception."""
    pid = os.fork()
    if not pid:
        try:
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
def test_what_the_machine_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "of_machine", lambda: memory.sizes("/proc/self/status")["VmData"] + 512 * MIB)
    monkeypatch.setattr(memory, "_swap", lambda: 0)

    def action() -> None:
        memory.limit()
        assert 256 * MIB < memory.free() <= 512 * MIB
        allocated(128 * MIB)
        with pytest.raises(RuntimeError, match="allocate memory"):
            allocated(1024 * MIB)

    assert in_child(action) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_limit_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "of_machine", lambda: 2**60)

    def action() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (2**35, 2**36))
        memory.limit()
        assert resource.getrlimit(resource.RLIMIT_DATA) == (2**35, 2**36)

    assert in_child(action) == 0


def test_pictures_that_do_not_fit_are_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_data.transforms(tmp_path)
    config = TransformsData(path=str(tmp_path), masks="off")
    views = config.parse()
    views.size[:] = 14_000  # 1.5 GB while one is decoded, 5.9 GB for ten
    monkeypatch.setattr(TransformsData, "parse", lambda self: views)
    monkeypatch.setattr("dataio.scene.checked", lambda views: views)
    monkeypatch.setattr(memory, "free", lambda: 1000 * MIB)
    monkeypatch.setattr(images, "read_image", lambda path: pytest.fail("decoded"))
    with pytest.raises(MemoryError, match=r"14000 x 14000 pixels need 7,\d\d\d MiB while .* 1,000 MiB are free"):
        config.load()


def test_a_training_goes_on_in_smaller_pieces(tmp_path: Path) -> None:
    """A real limit: what 8,192 rays want at once is refused, and the micro-batches are halved until they fit.

    A small training goes before, so that kernels that were never compiled here are compiled without the limit.
    """
    code = (
        "import resource, train\nfrom utils import memory\nfrom utils.errors import run_script\n"
        "def limit():\n"
        "    most = memory.sizes('/proc/self/status')['VmData'] + 150 * 2**20\n"
        "    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))\n"
        "memory.limit = limit\nrun_script(train.main, memory=train.SMALLER)"
    )
    grid = "model.foreground.field.encoding.log2_rows=8"
    keys = [*SMALL, SPHERE, grid, "train.rays=8192", "train.steps=2", "train.validations=0", f"output={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    small = ["train.rays=64", f"output={tmp_path / 'small'}"]
    before = [sys.executable, "train.py", "configs/neus_hash.yaml", *keys, *small]
    subprocess.run(before, cwd=ROOT, env=environment, check=True, timeout=300)
    command = [sys.executable, "-c", code, "configs/neus_hash.yaml", *keys]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    assert "8192 rays do not fit into memory: going on with train.micro_batch=4096" in said
    assert (tmp_path / "checkpoints/step_00000002").is_dir()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_was_freed_goes_back_to_the_system() -> None:
    """64 MB in pieces that the C library keeps, since one behind them is still in use."""
    pieces = [bytearray(60_000) for _ in range(1100)]
    kept = [bytearray(1000) for _ in range(100)]
    full = resident()
    del pieces
    memory.give_back()
    assert resident() < full - 32 * MIB and len(kept) == 100
