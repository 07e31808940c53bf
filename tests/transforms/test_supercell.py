import numpy as np
import pytest
import torch

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import InfiniteNeighborhood, PeriodicRadiusGraph, Supercell

CRYSTALS = {data.structure_id: data for data in small_crystals(torch.float64)}
MATRICES = {
    "diagonal": (2, 1, 3),
    "conventional": [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
    "skewed": [[2, 1, 0], [0, 1, -3], [1, 0, 2]],
    "left-handed": [[0, 2, 0], [1, 0, 0], [0, 0, 1]],
    "unimodular": [[1, 4, 0], [0, 1, 0], [-3, 0, 1]],
    "identity": (1, 1, 1),
}


def distances_per_atom(data):
    graph = PeriodicRadiusGraph(4.5)(data)
    return [np.sort(graph.edge_dist[graph.edge_index[1] == atom].numpy()) for atom in range(data.num_nodes)]


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("name", CRYSTALS)
def test_each_copy_of_an_atom_has_the_surroundings_of_the_atom(name, matrix):
    original = CRYSTALS[name]
    larger = Supercell(matrix)(original)
    copies = round(float(larger.cell.det().abs() / original.cell.det().abs()))
    full = np.diag(matrix) if np.ndim(matrix) == 1 else np.array(matrix)
    assert copies == round(abs(np.linalg.det(full)))
    assert torch.equal(larger.z, original.z.repeat(copies))
    expected = distances_per_atom(original) * copies
    for found, wanted in zip(distances_per_atom(larger), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_copies_differ_by_old_lattice_vectors_and_not_by_new_ones(matrix):
    original = CRYSTALS["triclinic"]
    larger = Supercell(matrix)(original)
    moved = larger.pos.view(-1, original.num_nodes, 3) - original.pos
    old = moved @ torch.linalg.inv(original.cell[0])
    torch.testing.assert_close(old, old.round(), rtol=0, atol=1e-9)
    torch.testing.assert_close(moved[0], torch.zeros_like(original.pos))
    new = moved[:, 0] @ torch.linalg.inv(larger.cell[0])
    assert bool((new > -1e-9).all())
    assert bool((new < 1 - 1e-9).all())


def test_the_cell_is_the_matrix_times_the_old_cell():
    matrix = torch.tensor(MATRICES["skewed"], dtype=torch.float64)
    larger = Supercell(MATRICES["skewed"])(CRYSTALS["triclinic"])
    torch.testing.assert_close(larger.cell[0], matrix @ CRYSTALS["triclinic"].cell[0])


def test_fields_per_atom_are_repeated_when_named_and_others_stay():
    data = CRYSTALS["NaCl"].clone()
    data.y = torch.tensor([[1.5]])
    data.magmom = torch.tensor([[1.0, 0.0], [2.0, 0.5]])
    larger = Supercell((1, 2, 1), node_fields=["magmom"])(data)
    assert torch.equal(larger.magmom, data.magmom.repeat(2, 1))
    assert larger.y.tolist() == [[1.5]]
    assert larger.structure_id == "NaCl"


def test_the_graph_is_removed():
    data = Supercell((2, 1, 1))(InfiniteNeighborhood(tol=1e-2, reciprocal_sigma_min=2.0)(CRYSTALS["NaCl"]))
    assert sorted(data.keys()) == ["cell", "pbc", "pos", "structure_id", "z"]


def test_the_given_crystal_is_not_changed():
    data = CRYSTALS["NaCl"].clone()
    Supercell((2, 2, 2))(data)
    assert data.num_nodes == 2
    assert torch.equal(data.cell, CRYSTALS["NaCl"].cell)


def test_a_slab_grows_in_its_plane_only():
    slab = CRYSTALS["NaCl"].clone()
    slab.pbc = torch.tensor([[True, True, False]])
    assert Supercell([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])(slab).num_nodes == 4
    for matrix in [(1, 1, 2), [[1, 0, 1], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [1, 0, 1]]]:
        with pytest.raises(
            InvalidStructureError, match=r"'NaCl': pbc is .* multiplies a direction that is not periodic"
        ):
            Supercell(matrix)(slab)


@pytest.mark.parametrize(
    "matrix", [(2, 2), (1, 0, 1), (2, -1, 1), (1.5, 1, 1), [[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.zeros((2, 2), int), 2]
)
def test_a_matrix_that_makes_no_cell_is_refused(matrix):
    with pytest.raises(ValueError, match="matrix: expected"):
        Supercell(matrix)


def test_repr():
    assert repr(Supercell((2, 1, 1))) == "Supercell([[2, 0, 0], [0, 1, 0], [0, 0, 1]])"
    assert repr(Supercell((1, 1, 1), ["forces"])).endswith(", node_fields=('forces',))")
