"""All kernels: they compile for a GPU, with no GPU and no driver at hand."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

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
