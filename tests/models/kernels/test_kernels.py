"""All kernels: they compile for a GPU, with no GPU and no driver at hand."""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import warp as wp

import models.kernels
from models.kernels.runtime import launch


def own_kernels(name: str) -> Iterator[wp.Kernel]:
    """The kernels that a module defines, not those it imports."""
    for value in vars(importlib.import_module(name)).values():
        if isinstance(value, wp.Kernel) and value.module.name == name:
            yield value


def with_kernels() -> list[str]:
    """Names of the modules that hold kernels."""
    names = [info.name for info in pkgutil.walk_packages(models.kernels.__path__, "models.kernels.")]
    return [name for name in names if any(own_kernels(name))]


@pytest.mark.parametrize("name", with_kernels())
@pytest.mark.parametrize("architecture", [75, 90])
def test_compiles_for_cuda(name: str, architecture: int, tmp_path: Path) -> None:
    module = importlib.import_module(name)
    files = wp.compile_aot_module(module, arch=architecture, module_dir=tmp_path, use_ptx=True)
    assert all(Path(file).stat().st_size > 0 for file in files)


def test_all_that_is_imported_is_loaded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, each module for the blocks of threads that it is launched with; on a CPU nothing."""
    loaded: dict[str, int | None] = {}

    def noted(device: str, modules: list[wp.Module], block_dim: int | None) -> None:
        assert device == "cuda:0"
        loaded.update({module.name: block_dim for module in modules})

    names = with_kernels()  # which imports them
    monkeypatch.setattr(launch.wp, "force_load", noted)
    launch.load_kernels(torch.device("cpu"))
    assert not loaded
    launch.load_kernels(torch.device("cuda:0"))
    assert set(names) <= set(loaded)
    assert loaded["models.kernels.networks.mlp"] == 128 and loaded["models.kernels.pixels.systematic"] == 512
    assert loaded["models.kernels.pixels.order"] is None


def test_a_kernel_without_memory_for_its_code_is_an_error_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Warp says where its code could not be placed; the module is read anew at the next launch."""
    kernel, out = next(own_kernels("models.kernels.pixels.order")), torch.zeros(1, dtype=torch.int64)
    inputs = [launch.as_warp(torch.tensor([3])), 1, 0, launch.as_warp(out)]

    def refused(*arguments: object, **options: object) -> None:
        raise RuntimeError(f"Failed to find forward kernel '{kernel.key}' from module 'x' for device 'cpu'")

    with monkeypatch.context() as within:
        within.setattr(launch.wp, "launch", refused)
        with pytest.raises(MemoryError, match="no memory is left to load the kernel order"):
            launch.Compiled(kernel, [0, *inputs])
    assert not kernel.module.execs
    launch.Compiled(kernel, [0, *inputs]).call(1, [0, *inputs])()
    assert out.tolist() == [0]  # the only place of one


@pytest.mark.parametrize(("shape", "dtype"), [((4,), None), ((4, 2), None), ((4, 2), wp.vec2), ((2, 3, 4), None)])
def test_a_descriptor_keeps_no_tensor_alive(shape: tuple[int, ...], dtype: type | None) -> None:
    """One that outlives a step would keep the gradient of a table."""
    memory = np.zeros(shape, np.float32)
    held = sys.getrefcount(memory)
    described = launch.as_warp(torch.from_numpy(memory), dtype)
    assert sys.getrefcount(memory) == held
    assert described.data == memory.ctypes.data
