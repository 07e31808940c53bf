import sys

import numpy as np
import pytest
import torch
from pymatgen.core import DummySpecies, IStructure, Lattice, Molecule, Species, Structure
from torch_geometric.data import Batch

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.data import from_structure, make_crystal, to_structure

ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SKEWED = np.array([[3.1, 0.2, -0.4], [1.7, 4.2, 0.1], [-2.0, 0.9, 5.3]])


def random_structure(seed: int, pbc=(True, True, True), handedness: float = 1.0) -> Structure:
    rng = np.random.default_rng(seed)
    cell = SKEWED * np.array([[1.0], [1.0], [handedness]])
    coords = rng.uniform(-1.5, 2.5, (5, 3))
    return Structure(Lattice(cell, pbc=pbc), ["H", "Og", "Fe", "O", "U"], coords)


def test_fields_have_the_shapes_and_types_of_the_data_model():
    data = from_structure(ROCK_SALT, y=1.5, structure_id="salt")
    assert (data.z.shape, data.z.dtype) == ((8,), torch.int64)
    assert (data.pos.shape, data.pos.dtype) == ((8, 3), torch.float32)
    assert (data.cell.shape, data.cell.dtype) == ((1, 3, 3), torch.float32)
    assert (data.pbc.tolist(), data.pbc.dtype) == ([[True, True, True]], torch.bool)
    assert data.y.tolist() == [[1.5]]
    assert data.structure_id == "salt"


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, False)])
@pytest.mark.parametrize("handedness", [1.0, -1.0])
def test_round_trip_keeps_cell_handedness_periodicity_and_atoms_outside_the_cell(pbc, handedness):
    structure = random_structure(0, pbc, handedness)
    data = from_structure(structure, dtype=torch.float64)
    back = to_structure(data)
    assert np.array_equal(back.lattice.matrix, structure.lattice.matrix)
    assert back.lattice.pbc == pbc
    assert [site.specie.Z for site in back] == [1, 118, 26, 8, 92]
    # positions go through fractional coordinates once more: a few roundings of float64
    assert np.allclose(back.cart_coords, structure.cart_coords, rtol=0, atol=1e-13)
    assert np.linalg.det(data.cell[0].numpy()) * handedness > 0


def test_molecule_round_trip_has_no_periodicity_and_the_identity_cell():
    water = Molecule(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    data = from_structure(water, dtype=torch.float64)
    assert not data.pbc.any()
    assert torch.equal(data.cell[0], torch.eye(3, dtype=torch.float64))
    assert to_structure(data) == water


def test_immutable_structures_are_accepted():
    assert from_structure(IStructure.from_sites(ROCK_SALT)).z.tolist() == [11] * 4 + [17] * 4


def test_oxidation_states_and_spins_do_not_enter():
    decorated = ROCK_SALT.copy()
    decorated.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    decorated.add_spin_by_element({"Na": 0.5})
    assert torch.equal(from_structure(decorated).z, from_structure(ROCK_SALT).z)


@pytest.mark.parametrize("isotope", ["D", "T"])
def test_deuterium_and_tritium_are_hydrogen(isotope):
    assert from_structure(Structure(Lattice.cubic(3), [isotope], [[0, 0, 0]])).z.tolist() == [1]


@pytest.mark.parametrize(
    "y", [[1.0, float("nan")], (1.0, float("nan")), torch.tensor([[1.0, float("nan")]]), np.array([1.0, np.nan])]
)
def test_several_targets_become_one_row_with_nan_where_missing(y):
    data = from_structure(ROCK_SALT, y=y)
    assert data.y.shape == (1, 2)
    assert data.y.isnan().tolist() == [[False, True]]


def test_fields_that_are_not_given_are_absent():
    assert {"y", "structure_id"}.isdisjoint(from_structure(ROCK_SALT).keys())


def test_batching_keeps_one_cell_and_name_per_crystal():
    batch = Batch.from_data_list(
        [from_structure(ROCK_SALT, 1.0, "a"), from_structure(random_structure(1, (True, True, False)), 2.0, "b")]
    )
    assert batch.cell.shape == (2, 3, 3)
    assert batch.pbc.tolist() == [[True, True, True], [True, True, False]]
    assert batch.structure_id == ["a", "b"]
    assert batch.y.tolist() == [[1.0], [2.0]]


def test_a_disordered_structure_is_refused_with_the_remedy():
    alloy = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    with pytest.raises(InvalidStructureError, match=r"'alloy': site 0 is disordered .*OrderDisordered"):
        from_structure(alloy, structure_id="alloy")


def test_a_partly_occupied_site_is_disordered():
    with pytest.raises(InvalidStructureError, match=r"site 0 is disordered \(Fe 0.7\)"):
        from_structure(Structure(Lattice.cubic(3), [{"Fe": 0.7}], [[0, 0, 0]]))


@pytest.mark.parametrize("species", [DummySpecies("X", 1), DummySpecies("Qa")])
def test_a_dummy_species_is_an_unknown_element(species):
    with pytest.raises(InvalidStructureError, match="unknown element"):
        from_structure(Structure(Lattice.cubic(3), [species], [[0, 0, 0]]))


def test_a_nan_position_is_refused_and_named():
    with pytest.raises(InvalidStructureError, match=r"structure 'bad': pos\[0, 0\] is nan"):
        from_structure(Structure(Lattice.cubic(3), ["Fe"], [[0, float("nan"), 0]]), structure_id="bad")


def test_an_error_names_an_unnamed_structure_by_its_composition():
    flat = Structure(Lattice([[3, 0, 0], [0, 3, 0], [3, 3, 0]]), [Species("Fe", 2)], [[0, 0, 0]])
    with pytest.raises(InvalidStructureError, match="structure 'Fe1': the cell has zero volume"):
        from_structure(flat)


def test_something_else_than_a_structure_is_refused():
    with pytest.raises(TypeError, match="expected a pymatgen Structure or Molecule, received dict"):
        from_structure({"lattice": []})


def test_an_integer_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype: expected a floating point type"):
        make_crystal([1], np.zeros((1, 3)), np.eye(3), (True, True, True), dtype=torch.int64)


def test_to_structure_refuses_an_invalid_crystal():
    data = from_structure(ROCK_SALT, structure_id="salt")
    data.z[0] = 250
    with pytest.raises(InvalidStructureError, match="'salt': atom 0 has atomic number 250"):
        to_structure(data)


def test_a_crystal_without_pbc_becomes_a_periodic_structure():
    data = from_structure(ROCK_SALT)
    del data.pbc
    assert to_structure(data).lattice.pbc == (True, True, True)


@pytest.mark.parametrize("convert", [from_structure, to_structure])
def test_without_pymatgen_what_to_install_is_named(monkeypatch, convert):
    monkeypatch.setitem(sys.modules, "pymatgen.core", None)
    with pytest.raises(MissingDependencyError, match="'pymatgen' is needed"):
        convert(None)
