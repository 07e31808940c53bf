import builtins

import numpy as np
import pytest
import torch

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.data import to_structure
from torch_geometric_crystal.testing import change_basis, small_crystals, unwrap
from torch_geometric_crystal.transforms import InfiniteNeighborhood, NiggliReduce, PeriodicRadiusGraph

CRYSTALS = {data.structure_id: data for data in small_crystals(torch.float64)}


def edge_lengths(data):
    """Distances from each atom, in the order of the atoms: the crystal, whatever its basis."""
    graph = PeriodicRadiusGraph(5.5)(data)
    return graph.edge_index[1], graph.edge_dist


def test_the_crystal_stays_the_same(crystal):
    before, after = edge_lengths(crystal), edge_lengths(NiggliReduce()(crystal))
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(before[1], after[1], rtol=1e-9, atol=1e-9)


def test_the_lattice_stays_the_same(crystal):
    combination = NiggliReduce()(crystal).cell[0] @ torch.linalg.inv(crystal.cell[0])
    torch.testing.assert_close(combination, combination.round(), rtol=0, atol=1e-9)
    assert abs(abs(torch.linalg.det(combination)) - 1) < 1e-9


def test_atoms_move_by_lattice_vectors_of_periodic_directions(crystal):
    moved = (NiggliReduce()(crystal).pos - crystal.pos) @ torch.linalg.inv(crystal.cell[0])
    torch.testing.assert_close(moved, moved.round() * crystal.pbc, rtol=0, atol=1e-9)


def test_atoms_lie_in_the_new_cell(crystal):
    data = NiggliReduce()(crystal)
    fractional = (data.pos @ torch.linalg.inv(data.cell[0]))[:, data.pbc[0]]
    assert bool((fractional > -1e-9).all())
    assert bool((fractional < 1 + 1e-9).all())


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_basis_gives_the_parameters_that_pymatgen_gives(name):
    expected = to_structure(CRYSTALS[name]).lattice.get_niggli_reduced_lattice().parameters
    for seed in range(4):
        data = NiggliReduce()(unwrap(change_basis(CRYSTALS[name], seed), seed))
        np.testing.assert_allclose(to_structure(data).lattice.parameters, expected, atol=1e-5)
        assert torch.linalg.det(data.cell[0]) > 0


def test_a_left_handed_basis_becomes_right_handed_without_a_mirror():
    left = CRYSTALS["GaAs-left-handed"]
    assert torch.linalg.det(left.cell[0]) < 0
    assert torch.linalg.det(NiggliReduce()(left).cell[0]) > 0


@pytest.mark.parametrize("seed", range(6))
def test_a_slab_is_reduced_in_its_plane(seed):
    slab = CRYSTALS["triclinic"].clone()
    slab.pbc = torch.tensor([[True, True, False]])
    skewed = change_basis(change_basis(slab, seed), seed + 1)
    if seed % 2:
        skewed.cell[0, 0] *= -1.0
    reduced = NiggliReduce()(skewed)
    a, b, c = reduced.cell[0]
    assert a.norm() <= b.norm()
    assert 2 * abs(a @ b) <= a @ a + 1e-9
    torch.testing.assert_close(c, skewed.cell[0, 2])
    assert torch.linalg.det(reduced.cell[0]) * torch.linalg.det(skewed.cell[0]) > 0


def test_float32_stays_float32():
    data = NiggliReduce()(small_crystals()[5])
    assert data.pos.dtype == torch.float32
    assert data.cell.dtype == torch.float32


def test_the_graph_is_removed():
    data = NiggliReduce()(InfiniteNeighborhood(tol=1e-2, reciprocal_sigma_min=2.0)(CRYSTALS["NaCl"]))
    assert sorted(data.keys()) == ["cell", "pbc", "pos", "structure_id", "z"]


def test_the_given_crystal_is_not_changed():
    data = CRYSTALS["TiO2-skewed"].clone()
    cell, pos = data.cell.clone(), data.pos.clone()
    NiggliReduce()(data)
    assert torch.equal(data.cell, cell)
    assert torch.equal(data.pos, pos)


def test_a_reduction_that_does_not_settle_is_an_error_with_a_name(monkeypatch):
    from pymatgen.core import Lattice

    def fails(self, tol):
        raise ValueError("can't find niggli")

    monkeypatch.setattr(Lattice, "get_niggli_reduced_lattice", fails)
    with pytest.raises(
        InvalidStructureError, match=r"'NaCl': its cell has no Niggli reduction within 1e-05\. Raise tol"
    ):
        NiggliReduce()(CRYSTALS["NaCl"])


def test_a_missing_pymatgen_is_named(monkeypatch):
    imported = builtins.__import__

    def without_pymatgen(name, *args, **kwargs):
        if name.startswith("pymatgen"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pymatgen)
    with pytest.raises(MissingDependencyError, match="pymatgen"):
        NiggliReduce()(CRYSTALS["NaCl"])


def test_a_tolerance_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="tol: expected a positive number"):
        NiggliReduce(tol=0.0)


def test_repr():
    assert repr(NiggliReduce()) == "NiggliReduce(tol=1e-05)"
