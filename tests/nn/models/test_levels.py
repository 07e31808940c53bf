"""Models whose targets are those of atoms: no pooling, and the same function of an atom's surroundings."""

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import ALIGNN, CGCNN, Crystalformer
from torch_geometric_crystal.nn.property_head import PropertyHead
from torch_geometric_crystal.testing import small_crystals

SMALL = {
    Crystalformer: {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 8},
    CGCNN: {"channels": 8, "num_layers": 1, "hidden_channels": 8},
    ALIGNN: {"channels": 8, "embedding_channels": 4, "num_alignn_layers": 1, "num_gcn_layers": 1},
}


def one_atom():
    return [data for data in small_crystals() if data.z.numel() == 1][:1]


@pytest.fixture(params=list(SMALL), ids=lambda kind: kind.__name__)
def pair(request):
    """A model of atoms, one of crystals with the same weights, and graphs for both."""
    torch.manual_seed(0)
    kind, options = request.param, SMALL[request.param]
    atoms = kind(num_targets=2, level="atom", **options).eval()
    crystals = kind(num_targets=2, **options).eval()
    crystals.load_state_dict(atoms.state_dict())
    graphs = [atoms.neighborhood()(data) for data in small_crystals()[:4] + one_atom()]
    return atoms, crystals, graphs


def test_each_atom_has_targets_and_an_embedding(pair):
    atoms, _, graphs = pair
    batch = Batch.from_data_list(graphs)
    out, embedding = atoms(batch, return_embedding=True)
    assert out.shape == (batch.num_nodes, 2)
    assert len(embedding) == batch.num_nodes
    alone = torch.cat([atoms(graph) for graph in graphs])
    torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-5)


def test_crystal_of_one_atom_has_the_targets_of_its_atom(pair):
    atoms, crystals, graphs = pair
    (single, *_) = [graph for graph in graphs if graph.num_nodes == 1]
    assert single.edge_index.size(1) > 0
    torch.testing.assert_close(atoms(single), crystals(single))


def test_level_is_part_of_the_configuration(pair):
    atoms, crystals, _ = pair
    assert (atoms.config()["level"], crystals.config()["level"]) == ("atom", "crystal")
    assert sum(p.numel() for p in atoms.parameters()) == sum(p.numel() for p in crystals.parameters())


@pytest.mark.parametrize("kind", list(SMALL), ids=lambda kind: kind.__name__)
def test_other_levels_are_refused(kind):
    with pytest.raises(ValueError, match="level: expected one of 'crystal', 'atom', received 'bond'"):
        kind(level="bond", **SMALL[kind])


def test_targets_of_atoms_are_not_shared_among_them():
    head = PropertyHead(4, 4, 1, level="atom")
    with pytest.raises(ValueError, match="level: expected 'crystal'"):
        head.atom_contributions(torch.randn(3, 4), torch.zeros(3, dtype=torch.long), 1)
