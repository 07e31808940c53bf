import numpy as np
import pytest
import torch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.testing import CHANGES, small_crystals
from torch_geometric_crystal.transforms import InfiniteNeighborhood, PeriodicKNNGraph

CRYSTALS = {data.structure_id: data for data in small_crystals(torch.float64)}
TOLERANCE = 1e-4


def degrees(data):
    return torch.bincount(data.edge_index[1], minlength=data.num_nodes).tolist()


def brute_force_nearest(edges, num_nodes, k, ties):
    """The k nearest of each atom: plain Python, one atom and one neighbour at a time."""
    chosen = []
    for atom in range(num_nodes):
        row = sorted((edge for edge in edges if edge[0] == atom), key=lambda edge: edge[5])
        shells = []
        for position, edge in enumerate(row):
            if position == 0 or edge[5] - row[position - 1][5] > TOLERANCE:
                shells.append([])
            shells[-1].append(edge)
        taken = []
        for shell in shells:
            if len(taken) < k:
                taken += sorted(shell, key=lambda edge: edge[1:5])
        chosen += taken if ties == "shell" else taken[:k]
    return sorted(edge[:5] for edge in chosen)


@pytest.mark.parametrize("ties", ["shell", "cut"])
@pytest.mark.parametrize(("k", "cutoff"), [(1, 5.0), (5, 5.0), (12, 5.0), (12, 2.0)])
def test_neighbours_are_those_of_brute_force(crystal, brute_force_edges, stored_edges, k, cutoff, ties):
    everything = brute_force_edges(crystal, cutoff + TOLERANCE)
    expected = brute_force_nearest(everything, crystal.num_nodes, k, ties)
    data = PeriodicKNNGraph(k, cutoff, ties=ties)(crystal)
    assert [edge[:5] for edge in stored_edges(data)] == expected


@pytest.mark.parametrize(
    ("name", "k", "expected"), [("NaCl", 12, 18), ("CsCl", 12, 14), ("diamond", 12, 16), ("Mg", 12, 12), ("Cu", 13, 18)]
)
def test_whole_shells_are_kept(name, k, expected):
    assert set(degrees(PeriodicKNNGraph(k, ties="shell")(CRYSTALS[name]))) == {expected}


@pytest.mark.parametrize("name", CRYSTALS)
def test_cutting_keeps_exactly_k(name):
    assert set(degrees(PeriodicKNNGraph(12, ties="cut")(CRYSTALS[name]))) == {12}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CRYSTALS)
def test_distances_to_whole_shells_do_not_depend_on_the_description(name, change):
    transform = PeriodicKNNGraph(12, 8.0, ties="shell")
    original, changed = transform(CRYSTALS[name]), transform(CHANGES[change](CRYSTALS[name]))
    copies = changed.num_nodes // original.num_nodes
    expected = np.sort(np.tile(original.edge_dist.numpy(), copies))
    np.testing.assert_allclose(np.sort(changed.edge_dist.numpy()), expected, rtol=1e-9)


def test_rounding_of_positions_does_not_split_a_shell():
    exact = CRYSTALS["SrTiO3"]
    noise = 1e-6 * torch.randn(exact.pos.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    noisy = exact.clone()
    noisy.pos = exact.pos + noise
    for ties in ("shell", "cut"):
        graphs = [PeriodicKNNGraph(12, ties=ties)(data) for data in (exact, noisy)]
        rows = [
            {(*edge, *shift) for edge, shift in zip(g.edge_index.T.tolist(), g.edge_shift.tolist(), strict=True)}
            for g in graphs
        ]
        assert rows[0] == rows[1]


def test_a_shell_at_the_cutoff_is_kept_whole():
    data = make_crystal(
        [29], np.zeros((1, 3)), np.diag([4.0 - 3e-5, 4.0, 4.0 + 3e-5]), (True,) * 3, dtype=torch.float64
    )
    assert degrees(PeriodicKNNGraph(12, cutoff=4.0)(data)) == [6]
    assert degrees(PeriodicKNNGraph(12, cutoff=4.0, tie_tolerance=0.0)(data)) == [4]


def sparse_crystal(edge=9.0):
    return make_crystal([2], np.zeros((1, 3)), edge * np.eye(3), (True,) * 3, dtype=torch.float64)


def test_keep_leaves_an_isolated_atom_without_edges():
    data = PeriodicKNNGraph(12, 8.0, shortage="keep")(sparse_crystal())
    assert data.edge_index.shape == (2, 0)
    assert data.edge_cutoff.tolist() == [8.0]


def test_growth_goes_to_the_longest_lattice_vector_then_doubles():
    data = PeriodicKNNGraph(12, 8.0, shortage="grow")(sparse_crystal(9.0))
    assert data.edge_cutoff.tolist() == [18.0]  # 8, then 9 with six neighbours, then twice 9
    assert degrees(data) == [18]  # 6 + 12
    data = PeriodicKNNGraph(6, 8.0, shortage="grow")(sparse_crystal(9.0))
    assert data.edge_cutoff.tolist() == [9.0]


def test_growth_stops_at_all_other_atoms_of_a_molecule():
    data = make_crystal([8, 1, 1], [[0, 0, 0], [30, 0, 0], [0, 40, 0]], np.eye(3), (False,) * 3, dtype=torch.float64)
    assert degrees(PeriodicKNNGraph(12, 8.0, shortage="grow")(data)) == [2, 2, 2]


def test_growth_finds_neighbours_in_a_slab_along_its_plane():
    cell = np.diag([20.0, 20.0, 50.0])
    data = make_crystal([6], np.zeros((1, 3)), cell, (True, True, False), dtype=torch.float64)
    data = PeriodicKNNGraph(12, 8.0, shortage="grow")(data)
    assert data.edge_shift[:, 2].unique().tolist() == [0]
    assert degrees(data) == [12]  # 4 at a, 4 at sqrt(2) a, 4 at 2 a
    assert data.edge_cutoff.tolist() == [40.0]


def test_mutual_edges_come_in_both_directions():
    lonely = make_crystal([1, 1, 1], [[0, 0, 0], [1, 0, 0], [3, 0, 0]], np.eye(3), (False,) * 3, dtype=torch.float64)
    one_way = PeriodicKNNGraph(1, 8.0)(lonely)
    assert sorted(one_way.edge_index.T.tolist()) == [[0, 1], [1, 0], [1, 2]]
    both = PeriodicKNNGraph(1, 8.0, mutual=True)(lonely)
    assert sorted(both.edge_index.T.tolist()) == [[0, 1], [1, 0], [1, 2], [2, 1]]


def test_mutual_edges_carry_opposite_images(crystal):
    data = PeriodicKNNGraph(5, 8.0, ties="cut", mutual=True)(crystal)
    source, target, shift = *data.edge_index.tolist(), data.edge_shift
    forwards = set(zip(source, target, map(tuple, shift.tolist()), strict=True))
    backwards = set(zip(target, source, map(tuple, (-shift).tolist()), strict=True))
    assert len(forwards) == len(source)
    assert forwards == backwards


def test_edges_are_sorted_by_target_then_by_distance(crystal):
    data = PeriodicKNNGraph(7, mutual=True)(crystal)
    keys = list(zip(data.edge_index[1].tolist(), data.edge_dist.tolist(), strict=True))
    assert keys == sorted(keys)


def test_fields_of_an_earlier_graph_are_removed():
    data = PeriodicKNNGraph()(InfiniteNeighborhood(tol=1e-2)(CRYSTALS["NaCl"]))
    assert "truncation_bound" not in data
    assert "log_tail" not in data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: expected at least 1, received 0"),
        ({"cutoff": -1.0}, "cutoff: expected a positive distance"),
        ({"ties": "drop"}, "ties: expected one of 'shell', 'cut', received 'drop'"),
        ({"shortage": "pad"}, "shortage: expected one of 'keep', 'grow', received 'pad'"),
        ({"tie_tolerance": -1e-3}, "tie_tolerance: expected a distance"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        PeriodicKNNGraph(**arguments)


def test_repr_tells_every_setting():
    assert repr(PeriodicKNNGraph(12, 8, ties="cut")) == (
        "PeriodicKNNGraph(k=12, cutoff=8.0, ties='cut', shortage='keep', mutual=False, tie_tolerance=0.0001)"
    )
