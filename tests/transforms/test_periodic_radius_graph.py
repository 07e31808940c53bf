import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.ops.lattice import edge_vectors
from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import InfiniteNeighborhood, PeriodicRadiusGraph

NACL = small_crystals()[0]


@pytest.mark.parametrize("cutoff", [2.0, 5.3])
def test_edges_are_those_of_brute_force(crystal, brute_force_edges, stored_edges, cutoff):
    expected = brute_force_edges(crystal, cutoff)
    found = stored_edges(PeriodicRadiusGraph(cutoff)(crystal))
    assert [edge[:5] for edge in found] == [edge[:5] for edge in expected]
    np.testing.assert_allclose([edge[5] for edge in found], [edge[5] for edge in expected], rtol=1e-12)


def test_distances_are_the_lengths_of_the_edge_vectors(crystal):
    data = PeriodicRadiusGraph(6.0)(crystal)
    vectors = edge_vectors(data.pos, data.cell, data.edge_index, data.edge_shift)
    torch.testing.assert_close(vectors.norm(dim=-1), data.edge_dist, rtol=1e-10, atol=1e-10)


def test_edges_are_sorted_by_target_then_by_distance(crystal):
    data = PeriodicRadiusGraph(6.0)(crystal)
    keys = list(zip(data.edge_index[1].tolist(), data.edge_dist.tolist(), strict=True))
    assert keys == sorted(keys)


def test_fields_have_the_documented_types():
    data = PeriodicRadiusGraph(6.0)(NACL)
    edges = data.edge_index.size(1)
    assert data.edge_index.dtype == torch.int64
    assert (data.edge_shift.dtype, data.edge_shift.shape) == (torch.int32, (edges, 3))
    assert (data.edge_dist.dtype, data.edge_dist.shape) == (torch.float32, (edges,))
    assert data.edge_cutoff.tolist() == [6.0]


def test_rock_salt_has_its_coordination_shells():
    dist = PeriodicRadiusGraph(4.9)(NACL).edge_dist.numpy()
    shells, counts = np.unique(np.round(dist / 2.82, 3), return_counts=True)
    np.testing.assert_allclose(shells, np.sqrt([1, 2, 3]), atol=1e-3)
    assert counts.tolist() == [12, 24, 16]  # 6, 12 and 8 neighbours of each of two atoms


def test_the_given_crystal_is_not_changed():
    data = NACL.clone()
    PeriodicRadiusGraph(4.0)(data)
    assert "edge_index" not in data


def test_fields_of_an_earlier_graph_are_removed():
    data = InfiniteNeighborhood(tol=1e-2)(NACL)
    assert "truncation_bound" in data
    data = PeriodicRadiusGraph(4.0)(data)
    assert "truncation_bound" not in data
    assert "log_tail" not in data
    assert data.edge_dist.min() > 0


def test_a_crystal_without_pbc_is_periodic():
    data = NACL.clone()
    del data.pbc
    assert torch.equal(PeriodicRadiusGraph(4.0)(data).edge_index, PeriodicRadiusGraph(4.0)(NACL).edge_index)


def test_an_isolated_atom_has_no_edges_and_batches():
    lone, nacl = NACL.clone(), PeriodicRadiusGraph(4.0)(NACL)
    lone.pbc = torch.zeros(1, 3, dtype=torch.bool)
    lone.pos, lone.z = lone.pos[:1], lone.z[:1]
    lone = PeriodicRadiusGraph(4.0)(lone)
    assert lone.edge_index.shape == (2, 0)
    assert lone.edge_shift.shape == (0, 3)
    batch = Batch.from_data_list([lone, nacl])
    assert torch.equal(batch.edge_index, nacl.edge_index + 1)


def test_a_nan_position_is_refused_by_name():
    data = NACL.clone()
    data.pos = torch.full_like(data.pos, float("nan"))
    with pytest.raises(InvalidStructureError, match="NaCl"):
        PeriodicRadiusGraph(4.0)(data)


def test_a_batch_is_refused():
    batch = Batch.from_data_list([NACL, NACL])
    with pytest.raises(
        InvalidStructureError, match=r"it has 2 cells, as a batch of crystals\. Apply transforms to each"
    ):
        PeriodicRadiusGraph(4.0)(batch)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_a_cutoff_that_is_not_positive_is_refused(cutoff):
    with pytest.raises(ValueError, match="cutoff: expected a positive distance"):
        PeriodicRadiusGraph(cutoff)


def test_repr():
    assert repr(PeriodicRadiusGraph(4)) == "PeriodicRadiusGraph(cutoff=4.0)"
