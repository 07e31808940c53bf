"""Crystals, small models with settled decays, and attention maps made by hand."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from torch_geometric_crystal.explain import AttentionMap
from torch_geometric_crystal.nn import Crystalformer

SMALL = {"channels": 16, "num_blocks": 2, "num_heads": 4, "num_basis": 8}


@pytest.fixture
def rocksalt():
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def rutile():
    return Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )


@pytest.fixture
def make_model():
    """Crystalformers in float64 whose widths differ between atoms and whose logits are far from equal."""

    def make(**arguments) -> Crystalformer:
        torch.manual_seed(3)
        model = Crystalformer(**SMALL | arguments).double().eval()
        for block in model.blocks:
            block.attention.decay.statistics.copy_(torch.tensor([2.0, 0.1]))
            block.attention.qkv.weight.data.mul_(2.0)
            torch.nn.init.normal_(block.attention.qkv.bias, std=0.3)
        torch.nn.init.normal_(model.embedding.weight)
        return model

    return make


@pytest.fixture
def by_hand():
    """An attention map of one block and one head on a chain A B A B ... of spacing 2 A, each with four images."""
    source = [0, 1, 1, 0, 0, 1, 0, 0, 1, 1]
    shift = [0, 0, -1, 1, -1, 0, 0, 1, 1, -1]
    dist = [0.0, 2.0, 2.0, 4.0, 4.0, 0.0, 2.0, 2.0, 4.0, 4.0]
    weights = [0.4, 0.2, 0.2, 0.1, 0.1, 0.6, 0.15, 0.15, 0.05, 0.05]
    return AttentionMap(
        structure_id="chain",
        z=np.array([11, 17]),
        pos=np.array([[0.0, 0, 0], [2.0, 0, 0]]),
        cell=np.diag([4.0, 30.0, 30.0]),
        pbc=np.array([True, True, True]),
        source=np.array(source),
        target=np.repeat([0, 1], 5),
        shift=np.array([[step, 0, 0] for step in shift]),
        dist=np.array(dist),
        weights=np.array(weights)[None, None],
        decay_weights=np.full((1, 1, 10), 0.2),
        sigma=np.array([[[1.0, 2.0]]]),
        domains=("real",),
        reciprocal=None,
        truncation_bound=0.0,
    )
