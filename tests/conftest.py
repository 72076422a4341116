"""What every test shares: one thread per process, the skip of GPU tests, the data beside the repository."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
DATA = SHARED / "data"

# The same examples on every run, and no deadline: a busy machine is not a fault of the code.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
# At night new examples each time, and many of them.
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile("default")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training treats denormals as zero in its process, and ranks ask for its end; a test after them does not."""
    monkeypatch.setattr("utils.errors._at_once", False)
    yield
    torch.set_flush_denormal(False)


def shared_data(name: str) -> Path:
    """Return the folder of the data set `name`, or skip the test where the data is not at hand.

    The data sets are not part of the repository (licenses, size); they lie in `../shared/data`, if anywhere.
    """
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"no data set {name} in ../shared/data")
    return folder


def shared_cases() -> Path:
    """Return the folder of reported inputs, beside that of the data sets, or skip the test where it is not at hand."""
    if not (SHARED / "cases").is_dir():
        pytest.skip("no reported inputs in ../shared/cases")
    return SHARED / "cases"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that a kernel promises to run on."""
    return torch.device(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `cuda` where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    with warnings.catch_warnings(action="ignore"):  # torch warns of a driver too old for it: no device either
        usable = not marked or torch.cuda.is_available()
    for item in [] if usable else marked:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))
