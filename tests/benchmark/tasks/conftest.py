import functools
from pathlib import Path

import pytest

from tests.benchmark.tasks import tiny_matbench as tiny
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.recipe import Recipe

THIRD_PARTY = "ignore::DeprecationWarning:matbench|matminer|monty|sklearn"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.filterwarnings(THIRD_PARTY))


@pytest.fixture
def pretend_official(monkeypatch):
    """Make a tiny file official: takes the folder and, for another task, its name, column and values."""
    return functools.partial(tiny.pretend_official, monkeypatch)


@pytest.fixture
def tiny_task(pretend_official, tmp_path, monkeypatch):
    """matbench_phonons with thirty crystals."""
    from torch_geometric_crystal.benchmark.tasks import load_task

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    pretend_official(folder)
    return load_task("matbench_phonons", folder)


@pytest.fixture
def tiny_config():
    def make(model="cgcnn", **settings):
        recipe = Recipe(epochs=2, batch_size=6, averaging_epochs=1)
        options = {"channels": 8} if model == "cgcnn" else {}
        return RunConfig(**{"model": model, "model_options": options, "device": "cpu", "recipe": recipe} | settings)

    return make
