"""Models with the weights of the authors' fixtures, and real crystals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_geometric_crystal.datasets import FLLA2015
from torch_geometric_crystal.nn import Crystalformer

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


@pytest.fixture(scope="session")
def fixture_model():
    """A function: the model of a parity fixture, in float32 unless told otherwise."""

    def load(name="real_beta"):
        arrays = np.load(PARITY / f"{name}.npz")
        weights = {key[2:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("w/")}
        return Crystalformer.from_official_state_dict(weights, json.loads(str(arrays["config"])))

    return load


@pytest.fixture(scope="session")
def real_crystals(tmp_path_factory):
    """A function: n real crystals of the bundled set, spread over it, in float64, without a graph."""
    dataset = FLLA2015(root=tmp_path_factory.mktemp("flla"), dtype=torch.float64, log=False)

    def choose(number, most_atoms=40, most_elements=98):
        small = [data for data in dataset if data.num_nodes <= most_atoms and int(data.z.max()) <= most_elements]
        return [small[index].clone() for index in range(0, len(small), len(small) // number)][:number]

    return choose
