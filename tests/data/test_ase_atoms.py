import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from pymatgen.io.ase import AseAtomsAdaptor

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.data import from_ase_atoms, from_structure, to_ase_atoms


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)])
def test_round_trip_is_exact_in_float64(pbc):
    rng = np.random.default_rng(0)
    atoms = Atoms("FeO2", rng.normal(size=(3, 3)) * 4, cell=rng.normal(size=(3, 3)) * 3, pbc=pbc)
    back = to_ase_atoms(from_ase_atoms(atoms, structure_id="a", dtype=torch.float64))
    assert back == atoms
    assert back.info["structure_id"] == "a"


def test_agrees_with_the_same_structure_from_pymatgen():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    ours = from_ase_atoms(atoms, y=2.0, dtype=torch.float64)
    other = from_structure(AseAtomsAdaptor.get_structure(atoms), y=2.0, dtype=torch.float64)
    for key in ("z", "cell", "pbc", "y"):
        assert torch.equal(ours[key], other[key])
    assert torch.allclose(ours.pos, other.pos, rtol=0, atol=1e-12)


def test_a_slab_without_a_third_vector_gets_a_unit_vector_orthogonal_to_the_others():
    slab = fcc111("Al", (1, 1, 3), periodic=False)
    assert not slab.cell[2].any()
    data = from_ase_atoms(slab, dtype=torch.float64)
    assert data.pbc.tolist() == [[True, True, False]]
    cell = data.cell[0]
    assert torch.allclose(cell[2].norm(), torch.ones((), dtype=torch.float64))
    assert torch.allclose(cell[:2] @ cell[2], torch.zeros(2, dtype=torch.float64))


def test_a_molecule_gets_the_identity_cell():
    data = from_ase_atoms(molecule("H2O"))
    assert torch.equal(data.cell[0], torch.eye(3))
    assert not data.pbc.any()


def test_a_periodic_direction_without_a_vector_is_refused():
    with pytest.raises(InvalidStructureError, match="zero volume"):
        from_ase_atoms(Atoms("H", cell=[3, 3, 0], pbc=True))


def test_partial_occupancies_that_ase_keeps_aside_are_refused():
    atoms = bulk("Fe")
    atoms.info["occupancy"] = {"0": {"Fe": 0.5, "Ni": 0.5}}
    with pytest.raises(InvalidStructureError, match="site 0 is disordered"):
        from_ase_atoms(atoms, structure_id="alloy")


def test_full_occupancies_pass():
    atoms = bulk("Fe")
    atoms.info["occupancy"] = {"0": {"Fe": 1.0}}
    assert from_ase_atoms(atoms).z.tolist() == [26]


def test_a_ghost_atom_is_refused():
    with pytest.raises(InvalidStructureError, match="atom 0 has atomic number 0"):
        from_ase_atoms(Atoms("X", cell=np.eye(3) * 3, pbc=True), structure_id="ghost")


def test_no_atoms_are_refused():
    with pytest.raises(InvalidStructureError, match="no atoms"):
        from_ase_atoms(Atoms(cell=np.eye(3), pbc=True))


def test_something_else_than_atoms_is_refused():
    with pytest.raises(TypeError, match=r"expected an ase.Atoms, received int"):
        from_ase_atoms(3)


@pytest.mark.parametrize("convert", [from_ase_atoms, to_ase_atoms])
def test_without_ase_the_extra_is_named(monkeypatch, convert):
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(MissingDependencyError, match=r"torch_geometric_crystal\[ase\]"):
        convert(None)
