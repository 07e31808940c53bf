"""A model so small that training it takes milliseconds, and crystals for it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.utils import scatter

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.benchmark.sources import CrystalParts
from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.nn.models import MODELS
from torch_geometric_crystal.nn.readout import TargetNormalization
from torch_geometric_crystal.transforms import PeriodicRadiusGraph


class TinyModel(nn.Module):
    """Mean over atoms of a function of species and neighbour distances; dropout, so that the random state matters."""

    def __init__(self, channels=8, num_targets=1, dropout=0.2, cutoff=4.0):
        super().__init__()
        self.options = {"channels": channels, "num_targets": num_targets, "dropout": dropout, "cutoff": cutoff}
        self.embedding = nn.Embedding(20, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels, num_targets)
        self.normalization = TargetNormalization(num_targets)

    def config(self):
        return dict(self.options)

    def neighborhood(self, **kwargs):
        return PeriodicRadiusGraph(**{"cutoff": self.options["cutoff"]} | kwargs)

    def forward(self, batch, return_embedding=False):
        x = self.embedding(batch.z)
        weight = torch.exp(-batch.edge_dist).unsqueeze(-1)
        x = x + scatter(weight * x[batch.edge_index[0]], batch.edge_index[1], dim_size=len(x))
        pooled = scatter(self.dropout(self.norm(x).tanh()), batch.batch, dim_size=batch.num_graphs, reduce="mean")
        out = self.normalization(self.out(pooled))
        return (out, pooled) if return_embedding else out

    def truncation_report(self, batch):
        return batch.edge_cutoff * 1e-6


@pytest.fixture(autouse=True)
def _tiny_model_is_known(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", TinyModel)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_crystals(number, num_targets=1, seed=0):
    """Cubic cells of one to four atoms with their graphs and targets that depend on species and volume."""
    generator = np.random.default_rng(seed)
    transform = PeriodicRadiusGraph(cutoff=4.0)
    crystals = []
    for index in range(number):
        atoms = int(generator.integers(1, 5))
        length = generator.uniform(2.5, 4.0)
        z = generator.choice([1, 3, 5, 6, 8, 9, 11, 14, 17, 19], size=atoms)
        y = [z.mean() + length + target for target in range(num_targets)]
        pos = length * generator.random((atoms, 3))
        crystals.append(transform(make_crystal(z, pos, length * np.eye(3), [True] * 3, y, f"crystal-{index}")))
    return crystals


@pytest.fixture
def make_crystals():
    return random_crystals


@pytest.fixture
def make_config():
    def make(**recipe):
        settings = {"epochs": 5, "batch_size": 8, "lr": 1e-2, "averaging_epochs": 2} | recipe
        return RunConfig(data="random", model="tiny", device="cpu", recipe=Recipe(**settings))

    return make


@pytest.fixture
def parts():
    crystals = random_crystals(60)
    cut = {"train": crystals[:40], "val": crystals[40:50], "test": crystals[50:]}
    return CrystalParts(cut, ("energy",), ("eV/atom",))


@pytest.fixture
def trained(parts, make_config, tmp_path):
    """A run's folder and model after two epochs."""
    from torch_geometric_crystal.benchmark.run import train_and_evaluate

    result = train_and_evaluate(make_config(epochs=2), parts, tmp_path / "trained")
    return result.output, result.model


@pytest.fixture
def tiny():
    def make(num_targets=1, **options):
        names = [f"target{index}" for index in range(num_targets)]
        return build_run_model(RunConfig(model="tiny", model_options=options), names, [""] * num_targets)

    return make
