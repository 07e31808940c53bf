import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.data import make_crystal, to_structure
from torch_geometric_crystal.datasets import MatbenchPhonons, OnDiskCrystals, write_graph_store
from torch_geometric_crystal.nn import ALIGNN
from torch_geometric_crystal.testing import permute_atoms, rotate, small_crystals
from torch_geometric_crystal.transforms import (
    InfiniteNeighborhood,
    LineGraph,
    LineGraphData,
    MergeEquivalent,
    MergeEquivalentAtoms,
    PeriodicKNNGraph,
    RandomPerturb,
    Supercell,
)

GRAPH = PeriodicKNNGraph(12, 8.0, ties="shell", shortage="grow", mutual=True)
MERGE = MergeEquivalent()


def rock_salt():
    pos = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 2]]) * 1.4
    return make_crystal([11] * 4 + [17] * 4, pos, 5.6 * np.eye(3), (True,) * 3, dtype=torch.float64)


def merged(data):
    return MERGE(GRAPH(data.clone()))


def sizes(data):
    return data.num_nodes, data.num_edges, data.line_graph_index.size(1)


def test_rock_salt_is_one_atom_of_each_element():
    data = merged(rock_salt())
    assert data.z.tolist() == [11, 17]
    assert data.atom_multiplicity.tolist() == [4, 4]
    # Each atom has the 6 of the other element and the 12 of its own within 12 neighbours and ties.
    assert data.edge_index.tolist() == [[1, 0, 0, 1], [0, 0, 1, 1]]
    assert data.edge_multiplicity.tolist() == [6, 12, 6, 12]
    assert data.edge_dist.tolist() == pytest.approx([2.8, 2.8 * 2**0.5] * 2)


def test_angles_of_rock_salt_are_counted_by_hand():
    """At the first atom of a short edge (from the other element): 6 of its neighbours at 180, 90 and 0 degrees."""
    data = merged(rock_salt())
    short = data.line_graph_index[1] == 0
    from_short = short & (data.edge_dist[data.line_graph_index[0]] < 3.0)
    cosines, counts = (data[name][from_short].tolist() for name in ("line_graph_cosine", "line_graph_multiplicity"))
    assert sorted(zip(cosines, counts, strict=True)) == [
        (pytest.approx(c, abs=1e-9), n) for c, n in ((-1, 1), (0, 4), (1, 1))
    ]


def test_what_is_kept_stands_for_everything(crystal):
    if crystal.num_nodes == 1 and not crystal.pbc.any():
        pytest.skip("no edges")
    whole = LineGraph()(GRAPH(crystal.clone()))
    data = merged(crystal)
    assert data.atom_multiplicity.sum() == whole.num_nodes
    edges = data.edge_multiplicity * data.atom_multiplicity[data.edge_index[1]]
    assert edges.sum() == whole.num_edges
    pairs = data.line_graph_multiplicity * edges[data.line_graph_index[1]]
    assert pairs.sum() == whole.line_graph_index.size(1)
    # Sums over all edges and pairs of something smooth.
    for kept, count, every in (
        (data.edge_dist, edges, whole.edge_dist),
        (data.line_graph_cosine, pairs, whole.line_graph_cosine),
    ):
        assert (kept.exp() * count).sum().item() == pytest.approx(every.exp().sum().item(), rel=2e-4)


def test_what_is_kept_does_not_depend_on_how_the_crystal_is_described():
    for crystal in small_crystals(torch.float64):
        expected = sizes(merged(crystal))
        assert sizes(merged(Supercell((2, 1, 2))(crystal.clone()))) == expected
        assert sizes(merged(rotate(crystal, 3))) == expected
        assert sizes(merged(permute_atoms(crystal, 4))) == expected


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning:spglib")
def test_orbits_of_the_space_group_are_merged():
    """As many atoms as spglib finds kinds of, or fewer: the graph may not show what makes two kinds differ."""
    analyzer = pytest.importorskip("pymatgen.symmetry.analyzer")
    dataset = MatbenchPhonons()
    fewer, total = 0, 0
    for index in range(0, len(dataset), 25):
        structure = to_structure(dataset[index])
        orbits = analyzer.SpacegroupAnalyzer(structure, symprec=1e-5).get_symmetry_dataset().equivalent_atoms
        number = sizes(merged(dataset[index]))[0]
        assert number <= len(set(orbits))
        fewer += number < len(set(orbits))
        total += 1
    assert 0 < fewer < 0.2 * total


def test_without_symmetry_everything_is_kept():
    crystal = RandomPerturb(0.3, seed=1)(Supercell((1, 1, 2))(rock_salt()))
    whole = LineGraph()(GRAPH(crystal.clone()))
    data = merged(crystal)
    assert sizes(data) == sizes(whole)
    assert torch.equal(data.edge_index, whole.edge_index)
    assert torch.equal(data.line_graph_index, whole.line_graph_index)
    assert all(
        (data[name] == 1).all() for name in ("atom_multiplicity", "edge_multiplicity", "line_graph_multiplicity")
    )


def test_the_tolerance_decides_what_is_the_same():
    crystal = rock_salt()
    crystal.pos[0, 0] += 1e-3
    graph = PeriodicKNNGraph(12, 8.0, mutual=True, tie_tolerance=1e-2)
    assert MergeEquivalent(5e-3)(graph(crystal.clone())).num_nodes == 2
    assert MergeEquivalent(1e-4)(graph(crystal.clone())).num_nodes > 2


def test_atoms_with_features_of_their_own_are_not_merged():
    crystal = rock_salt()
    crystal.x = torch.zeros(8, 2)
    assert merged(crystal).num_nodes == 2
    crystal.x[3, 1] = 1.0
    data = merged(crystal)
    assert data.num_nodes > 2
    assert data.x.size(0) == data.num_nodes
    assert data.atom_multiplicity[data.x[:, 1] == 1.0].tolist() == [1]


def test_edges_with_features_of_their_own_are_not_merged():
    data = GRAPH(rock_salt())
    data.edge_attr = torch.zeros(data.num_edges, 1)
    alike = MERGE(data.clone())
    data.edge_attr[5] = 1.0
    assert sizes(alike)[1] == 4 < sizes(MERGE(data))[1]


def test_a_line_graph_of_the_crystal_is_used():
    one_way = LineGraph(backtracking=False)(GRAPH(rock_salt()))
    data, both_ways = MERGE(one_way.clone()), merged(rock_salt())
    edges = data.edge_multiplicity * data.atom_multiplicity[data.edge_index[1]]
    pairs = data.line_graph_multiplicity * edges[data.line_graph_index[1]]
    assert pairs.sum() == one_way.line_graph_index.size(1) < 8 * 18 * 18
    assert sizes(data)[:2] == sizes(both_ways)[:2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_crystal_stays_on_its_device():
    data = MERGE(GRAPH(rock_salt()).to("cuda"))
    assert {value.device.type for value in data.to_dict().values() if isinstance(value, torch.Tensor)} == {"cuda"}


def test_a_store_keeps_merged_crystals(tmp_path):
    transform = ALIGNN(channels=8).neighborhood(merge_tolerance=1e-4)
    write_graph_store(small_crystals(), tmp_path / "store", transform, num_workers=0)
    store = OnDiskCrystals(tmp_path / "store")
    store.check_transform(ALIGNN(channels=8).neighborhood(merge_tolerance=1e-4))
    for kept, crystal in zip(store, small_crystals(), strict=True):
        expected = transform(crystal)
        assert isinstance(kept, LineGraphData)
        assert all(torch.equal(kept[k], v) for k, v in expected.to_dict().items() if isinstance(v, torch.Tensor))
    with pytest.raises(ValueError, match="merge_tolerance"):
        store.check_transform(ALIGNN(channels=8).neighborhood())


def test_a_batch_counts_its_own_atoms_and_edges():
    crystals = [merged(data) for data in small_crystals(torch.float64)]
    assert all(isinstance(data, LineGraphData) for data in crystals)
    batch = Batch.from_data_list(crystals)
    for before, after in zip(crystals, batch.to_data_list(), strict=True):
        assert torch.equal(before.line_graph_index, after.line_graph_index)
        assert torch.equal(before.edge_index, after.edge_index)
    atoms = sum(data.num_nodes for data in crystals[:-1])
    edges = sum(data.num_edges for data in crystals[:-1])
    assert torch.equal(batch.edge_index[:, edges:], crystals[-1].edge_index + atoms)
    pairs = crystals[-1].line_graph_index.size(1)
    assert torch.equal(batch.line_graph_index[:, -pairs:], crystals[-1].line_graph_index + edges)


def test_fields_that_lead_to_lost_atoms_are_removed():
    data = merged(rock_salt())
    assert "edge_shift" not in data
    assert data.cell.shape == (1, 3, 3)
    assert data.pos.shape == (2, 3)


def test_targets_of_atoms_are_refused():
    crystal = rock_salt()
    crystal.y = torch.zeros(8, 1)
    with pytest.raises(ValueError, match="atoms with targets cannot be merged"):
        merged(crystal)
    crystal.y = torch.zeros(1, 3)
    assert merged(crystal).y.shape == (1, 3)


def test_a_crystal_without_a_graph_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="Apply PeriodicKNNGraph or PeriodicRadiusGraph first"):
        MERGE(rock_salt())


def test_edges_without_a_direction_are_refused():
    with pytest.raises(ValueError, match="length 0"):
        MERGE(InfiniteNeighborhood(tol=1e-2)(rock_salt()))


def test_an_atom_without_edges_is_kept():
    alone = make_crystal([26], [[0.0, 0.0, 0.0]], 30.0 * np.eye(3), [True] * 3)
    merged = MergeEquivalent()(PeriodicKNNGraph(k=4, cutoff=3.0, shortage="keep")(alone))
    assert (merged.num_nodes, merged.num_edges, merged.atom_multiplicity.tolist()) == (1, 0, [1])
    no_edges = InfiniteNeighborhood(reciprocal_sigma_min=0.7, domain="auto")(
        make_crystal([55, 17], [[0.0, 0.0, 0.0], [1.45, 1.45, 1.2]], 2.9 * np.eye(3), [True] * 3)
    )
    assert no_edges.num_edges == 0
    assert MergeEquivalentAtoms()(no_edges).num_nodes == 2


@pytest.mark.parametrize("y", [torch.tensor(1.0), torch.zeros(2, 1)])
def test_targets_that_are_no_row_are_refused(y):
    crystal = PeriodicKNNGraph()(small_crystals()[0])
    crystal.y = y
    with pytest.raises(ValueError, match="expected targets of the crystal"):
        MergeEquivalent()(crystal)


@pytest.mark.parametrize(("graph", "merge"), [(GRAPH, MERGE), (InfiniteNeighborhood(), MergeEquivalentAtoms())])
def test_a_list_of_what_belongs_to_atoms_is_named(graph, merge):
    crystal = graph(rock_salt())
    crystal.site_labels = [f"site {k}" for k in range(crystal.num_nodes)]
    with pytest.raises(ValueError, match=r"data\.site_labels: expected a tensor .*, received 'list'"):
        merge(crystal)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="merge_tolerance"):
        MergeEquivalent(-1.0)
    assert repr(MERGE) == "MergeEquivalent(merge_tolerance=0.0001)"
