from itertools import product

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.testing import rotate, small_crystals
from torch_geometric_crystal.transforms import (
    InfiniteNeighborhood,
    LineGraph,
    LineGraphData,
    PeriodicKNNGraph,
    PeriodicRadiusGraph,
)
from torch_geometric_crystal.transforms.line_graph import line_graph_pairs

CRYSTALS = small_crystals(torch.float64)
GRAPH = PeriodicKNNGraph(5, 8.0)


def brute_force_pairs(data, backtracking=True):
    """Pairs of edges and the cosine at their common atom, from the places of the three atoms."""
    pos, cell = data.pos.numpy(), data.cell[0].numpy()
    edges = list(zip(*data.edge_index.tolist(), data.edge_shift.numpy(), strict=True))
    pairs = {}
    for (first, (a, b, n)), (second, (b2, c, m)) in product(enumerate(edges), repeat=2):
        if b != b2 or (not backtracking and a == c and (n == -m).all()):
            continue
        place_a, place_b = pos[a] + n @ cell, pos[b]  # edge a -> b: image n of a beside b in the home cell
        place_c = pos[c] - m @ cell  # edge b -> c: image m of b beside c; moved back, b is in the home cell
        to_a, to_c = place_a - place_b, place_c - place_b
        pairs[first, second] = to_a @ to_c / np.linalg.norm(to_a) / np.linalg.norm(to_c)
    return pairs


@pytest.mark.parametrize("backtracking", [True, False])
def test_pairs_and_angles_are_those_of_brute_force(crystal, backtracking):
    data = LineGraph(backtracking)(GRAPH(crystal))
    expected = brute_force_pairs(data, backtracking)
    pairs = [tuple(pair) for pair in data.line_graph_index.T.tolist()]
    assert pairs == sorted(expected, key=lambda pair: pair[::-1])
    np.testing.assert_allclose(data.line_graph_cosine, [expected[pair] for pair in pairs], atol=1e-10)


@pytest.mark.parametrize(
    ("lattice", "degree"),
    [
        (4.0 * np.eye(3), 18),  # simple cubic: 6 and 12
        (3.0 * (np.ones((3, 3)) / 2 - np.eye(3)), 14),  # body-centred: 8 and 6
        (3.6 * (np.ones((3, 3)) - np.eye(3)) / 2, 12),  # face-centred
        (np.array([[2.5, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.9, 9.5]]), 12),  # long: edges over several cells
    ],
)
def test_one_atom_cells_have_every_pair_of_their_parallel_edges(lattice, degree):
    alignn = PeriodicKNNGraph(12, 8.0, ties="shell", shortage="grow", mutual=True)
    crystal = make_crystal([29], np.zeros((1, 3)), lattice, (True,) * 3, dtype=torch.float64)
    data = LineGraph()(alignn(crystal))
    assert data.num_edges == degree
    expected = brute_force_pairs(data)
    pairs = [tuple(pair) for pair in data.line_graph_index.T.tolist()]
    assert len(pairs) == degree**2
    assert pairs == sorted(expected, key=lambda pair: pair[::-1])
    np.testing.assert_allclose(data.line_graph_cosine, [expected[pair] for pair in pairs], atol=1e-12)
    assert LineGraph(backtracking=False)(data).line_graph_index.size(1) == degree**2 - degree


def test_pairs_do_not_need_sorted_edges_or_edges_at_all():
    edge_index = torch.randint(7, (2, 40))
    edge_index[edge_index == 3] = 2  # an atom without edges
    first, second = line_graph_pairs(edge_index, 9)
    expected = [(b, a) for a, b in product(range(40), repeat=2) if edge_index[1, a] == edge_index[0, b]]
    assert list(zip(second.tolist(), first.tolist(), strict=True)) == sorted(expected)
    assert line_graph_pairs(edge_index[:, :0], 9).shape == (2, 0)


def test_pairs_of_a_batch_are_those_of_its_crystals():
    batch = Batch.from_data_list([LineGraph()(GRAPH(data)) for data in CRYSTALS])
    assert torch.equal(line_graph_pairs(batch.edge_index, batch.num_nodes), batch.line_graph_index)


def test_parallel_edges_stay_apart():
    copper = LineGraph()(PeriodicRadiusGraph(2.7)(CRYSTALS[4]))
    assert copper.edge_index.unique().tolist() == [0]  # twelve edges from the only atom to itself
    assert copper.line_graph_index.shape == (2, 144)
    angles = torch.rad2deg(copper.line_graph_cosine.clamp(-1, 1).acos()).round()
    values, counts = angles.unique(return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 12, 60: 48, 90: 24, 120: 48, 180: 12}


def test_diamond_has_tetrahedral_angles():
    diamond = LineGraph(backtracking=False)(PeriodicRadiusGraph(1.6)(CRYSTALS[2]))
    torch.testing.assert_close(diamond.line_graph_cosine, torch.full((24,), -1 / 3, dtype=torch.float64))


def test_angles_do_not_change_with_a_rotation():
    data = LineGraph()(GRAPH(CRYSTALS[-1]))
    turned = LineGraph()(GRAPH(rotate(CRYSTALS[-1])))
    torch.testing.assert_close(turned.line_graph_cosine, data.line_graph_cosine)


def test_a_batch_is_offset_by_edges():
    crystals = [LineGraph()(GRAPH(data)) for data in CRYSTALS[:4]]
    batch = Batch.from_data_list(crystals)
    assert batch.line_graph_index.size(1) == sum(data.line_graph_index.size(1) for data in crystals)
    edge = batch.edge_index[:, batch.line_graph_index]  # (source or target, first or second, pair)
    assert torch.equal(edge[1, 0], edge[0, 1])
    edge_crystal = batch.batch[batch.edge_index[1]]
    first, second = edge_crystal[batch.line_graph_index]
    assert torch.equal(first, second)
    offsets = np.cumsum([0] + [data.num_edges for data in crystals])
    expected = [data.line_graph_index + offset for data, offset in zip(crystals, offsets[:-1], strict=True)]
    assert torch.equal(batch.line_graph_index, torch.cat(expected, dim=1))


def test_a_batch_comes_apart_again():
    crystals = [LineGraph()(GRAPH(data)) for data in CRYSTALS[:3]]
    for original, returned in zip(crystals, Batch.from_data_list(crystals).to_data_list(), strict=True):
        assert isinstance(returned, LineGraphData)
        assert torch.equal(returned.line_graph_index, original.line_graph_index)


def test_a_loader_batches_as_well():
    crystals = [LineGraph()(GRAPH(data)) for data in CRYSTALS[:2]]
    batch = next(iter(DataLoader(crystals, batch_size=2)))
    assert int(batch.line_graph_index[:, -1].min()) >= crystals[0].num_edges


def test_a_crystal_without_edges_has_an_empty_line_graph():
    lone = CRYSTALS[4].clone()
    lone.pbc = torch.zeros(1, 3, dtype=torch.bool)
    data = LineGraph()(GRAPH(lone))
    assert data.line_graph_index.shape == (2, 0)
    assert data.line_graph_cosine.shape == (0,)
    batch = Batch.from_data_list([data, LineGraph()(GRAPH(CRYSTALS[0]))])
    assert int(batch.line_graph_index.max()) < batch.num_edges


def test_fields_of_the_crystal_are_kept_and_the_given_one_is_not_changed():
    data = GRAPH(CRYSTALS[0])
    data.y = torch.tensor([[1.0]])
    lined = LineGraph()(data)
    assert isinstance(lined, LineGraphData)
    assert set(data.keys()) | {"line_graph_index", "line_graph_cosine"} == set(lined.keys())
    assert type(data) is Data
    assert "line_graph_index" not in data


def test_a_dataset_is_saved_and_loaded_without_pickled_code(tmp_path):
    crystals = [LineGraph()(GRAPH(data)) for data in CRYSTALS[:3]]
    InMemoryDataset.save(crystals, tmp_path / "crystals.pt")
    content = torch.load(tmp_path / "crystals.pt", weights_only=True)
    assert content[2] is LineGraphData
    dataset = InMemoryDataset()
    dataset.load(tmp_path / "crystals.pt")
    assert torch.equal(dataset[2].line_graph_index, crystals[2].line_graph_index)


def test_a_new_graph_removes_the_line_graph():
    data = GRAPH(LineGraph()(GRAPH(CRYSTALS[0])))
    assert "line_graph_index" not in data
    assert "line_graph_cosine" not in data


def test_a_crystal_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="Apply PeriodicKNNGraph or PeriodicRadiusGraph first"):
        LineGraph()(CRYSTALS[0])


def test_an_edge_without_direction_is_refused():
    with pytest.raises(InvalidStructureError, match="'NaCl': an edge of its graph has length 0"):
        LineGraph()(InfiniteNeighborhood(tol=1e-2)(CRYSTALS[0]))


def test_repr():
    assert repr(LineGraph()) == "LineGraph(backtracking=True)"
