import numpy as np
import pytest
import torch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.testing import (
    CHANGES,
    change_basis,
    permute_atoms,
    rotate,
    small_crystals,
    supercell,
    translate,
    unwrap,
    wrap,
)
from torch_geometric_crystal.transforms import PeriodicKNNGraph, PeriodicRadiusGraph

CRYSTALS = {data.structure_id: data for data in small_crystals(torch.float64)}
TRICLINIC = CRYSTALS["triclinic"]
SLAB = TRICLINIC.clone()
SLAB.pbc = torch.tensor([[True, False, True]])
MOLECULE = make_crystal([8, 1], [[0.2, 0.1, 0.3], [1.1, 0.2, 0.3]], np.eye(3), (False,) * 3, dtype=torch.float64)


def neighbours(data):
    """Sorted (Z of target, Z of source, distance): the crystal, however it is described."""
    graph = PeriodicRadiusGraph(5.0)(data)
    source, target = data.z[graph.edge_index]
    return sorted(zip(target.tolist(), source.tolist(), graph.edge_dist.tolist(), strict=True))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("crystal", [*CRYSTALS.values(), SLAB, MOLECULE])
def test_a_changed_description_is_of_the_same_crystal(crystal, change):
    changed = CHANGES[change](crystal)
    copies = changed.num_nodes // crystal.num_nodes
    expected = sorted(neighbours(crystal) * copies)
    found = neighbours(changed)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in expected], atol=1e-9)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_given_is_not_changed(change):
    data = PeriodicKNNGraph(4)(TRICLINIC)
    before = data.clone()
    changed = CHANGES[change](data)
    assert set(data.keys()) == set(before.keys())
    assert torch.equal(data.pos, before.pos)
    assert torch.equal(data.cell, before.cell)
    assert torch.equal(data.z, before.z)
    assert "edge_index" not in changed
    assert changed.structure_id == data.structure_id


@pytest.mark.parametrize("change", CHANGES)
def test_types_are_kept(change):
    changed = CHANGES[change](small_crystals()[0])
    assert changed.pos.dtype == changed.cell.dtype == torch.float32
    assert changed.z.dtype == torch.int64


def test_a_rotation_is_proper_and_turns_both():
    rotation = torch.linalg.solve(TRICLINIC.cell[0], rotate(TRICLINIC, seed=3).cell[0])
    assert abs(torch.linalg.det(rotation) - 1) < 1e-12
    torch.testing.assert_close(rotate(TRICLINIC, seed=3).pos, TRICLINIC.pos @ rotation)
    assert (rotation - torch.eye(3)).abs().max() > 0.1


def test_a_translation_moves_all_atoms_by_one_vector_of_the_given_length():
    moved = translate(TRICLINIC, seed=2, distance=1.5).pos - TRICLINIC.pos
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    torch.testing.assert_close(moved[0].norm().item(), 1.5)


@pytest.mark.parametrize("seed", range(20))
def test_a_permutation_changes_the_order(seed):
    nacl = permute_atoms(CRYSTALS["NaCl"], seed)
    assert nacl.z.tolist() == [17, 11]


def test_another_basis_spans_the_same_lattice_and_changes_its_hand():
    for seed in range(5):
        combination = change_basis(TRICLINIC, seed).cell[0] @ torch.linalg.inv(TRICLINIC.cell[0])
        torch.testing.assert_close(combination, combination.round(), rtol=0, atol=1e-9)
        assert abs(torch.linalg.det(combination) + 1) < 1e-9
        assert (combination.abs() > 0.5).sum() > 3


def test_another_basis_leaves_directions_alone_that_are_not_periodic():
    changed = change_basis(SLAB).cell[0]
    assert torch.equal(changed[1], SLAB.cell[0, 1])
    combination = changed @ torch.linalg.inv(SLAB.cell[0])
    torch.testing.assert_close(combination[:, 1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))


def test_a_supercell_grows_along_periodic_directions():
    assert supercell(TRICLINIC).num_nodes == 4 * 4
    assert supercell(SLAB, (2, 3, 2)).num_nodes == 4 * 4
    assert supercell(MOLECULE).num_nodes == 2
    assert supercell(TRICLINIC, [[1, 1, 0], [0, 1, 0], [0, 0, 2]]).num_nodes == 8


def test_wrapping_puts_atoms_into_the_cell_and_unwrapping_out_of_it():
    def fractional(data):
        return data.pos @ torch.linalg.inv(data.cell[0])

    out = fractional(unwrap(SLAB))
    assert bool(((out < 0) | (out >= 1))[:, [0, 2]].any())
    torch.testing.assert_close(out[:, 1], fractional(SLAB)[:, 1])
    back = fractional(wrap(unwrap(SLAB)))
    assert bool(((back > -1e-9) & (back < 1 + 1e-9))[:, [0, 2]].all())
    high = translate(SLAB, distance=40.0)
    torch.testing.assert_close(fractional(wrap(high))[:, 1], fractional(high)[:, 1])
