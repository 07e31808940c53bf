import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.datasets import LabelSource, open_source
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource


def test_structures_atoms_and_data_are_read_alike(salt):
    entries = list(StructureListSource([salt, AseAtomsAdaptor.get_atoms(salt), from_structure(salt)]))
    assert [entry.structure_id for entry in entries] == ["0", "1", "2"]
    loaded = [entry.load(torch.float64) for entry in entries]
    for data in loaded:
        assert torch.equal(data.z, loaded[0].z)
        assert torch.allclose(data.pos, loaded[0].pos)
        assert data.pbc.all()


def test_data_bring_their_targets_and_names(salt):
    source = StructureListSource([from_structure(salt, [1.0, 2.0], "a"), from_structure(salt)])
    entries = list(source)
    assert source.target_names == ("target_1", "target_2")
    assert [entry.structure_id for entry in entries] == ["a", "1"]
    assert entries[0].targets == (1.0, 2.0)
    assert np.isnan(entries[1].targets).all()


def test_a_disordered_structure_raises_only_when_loaded(salt):
    alloy = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    entries = list(StructureListSource([alloy, salt]))
    entries[1].load()
    with pytest.raises(InvalidStructureError, match="structure '0': site 0 is disordered"):
        entries[0].load()


def test_something_else_is_refused(salt):
    with pytest.raises(TypeError, match="received str"):
        list(StructureListSource([salt, "salt.cif"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": [1.0]}, "targets: expected 2 rows"),
        ({"structure_ids": ["a"]}, "structure_ids: expected 2 names"),
        ({"targets": [[1, 2], [3, 4]], "target_names": "a"}, "target_names: expected 2 names"),
        ({"target_names": "a"}, "target_names: expected names of what the structures hold"),
    ],
)
def test_numbers_that_do_not_match_are_named(salt, options, message):
    with pytest.raises(ValueError, match=message):
        StructureListSource([salt, salt], **options)


def test_targets_of_unequal_length_are_refused(salt):
    with pytest.raises(ValueError, match="y of equal length"):
        StructureListSource([from_structure(salt, 1.0), from_structure(salt, [1.0, 2.0])])


def test_the_fingerprint_changes_with_anything_in_the_list(salt):
    moved = salt.copy()
    moved.translate_sites([0], [0.01, 0, 0])
    other = salt.copy()
    other.replace(0, "K")
    sources = [
        StructureListSource([salt]),
        StructureListSource([moved]),
        StructureListSource([other]),
        StructureListSource([salt, salt]),
        StructureListSource([salt], structure_ids=["a"]),
        StructureListSource([salt], targets=[1.0]),
        StructureListSource([salt], targets=[2.0]),
        StructureListSource([salt], targets=[1.0], target_names="a"),
    ]
    assert len({source.fingerprint() for source in sources}) == len(sources)
    assert StructureListSource([salt.copy()]).fingerprint() == sources[0].fingerprint()


def test_targets_of_atoms_are_read_at_their_level(salt):
    alone = from_structure(Structure(Lattice.cubic(3), ["Fe"], [[0, 0, 0]]))
    crystals = [from_structure(salt), alone, from_structure(salt)]
    crystals[0].y, crystals[1].y = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0]])
    source = StructureListSource(crystals)
    assert source.target_names == ("target_1", "target_2")
    with pytest.raises(InvalidStructureError, match="to learn a value for each atom, choose the level atom"):
        next(iter(source)).load()
    first, second, third = (entry for entry in LabelSource(source, level="atom"))
    assert first.load().y.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert second.load().y.tolist() == [[5.0, 6.0]]
    with pytest.raises(InvalidStructureError, match="it has no value for any atom"):
        third.load()


def test_targets_that_are_given_go_before_those_of_the_data(salt):
    crystals = [from_structure(salt, [1.0, 2.0]), from_structure(salt), from_structure(salt)]
    crystals[1].y, crystals[2].y = 3.0, torch.zeros(2, 1)
    source = StructureListSource(crystals, targets=[4.0, 5.0, 6.0])
    assert [entry.load().y.tolist() for entry in source] == [[[4.0]], [[5.0]], [[6.0]]]
    assert [entry.load().y.tolist() for entry in StructureListSource(crystals[1:2])] == [[[3.0]]]


def test_named_targets_are_looked_up_in_the_structures(salt):
    other = salt.copy(site_properties={"magmom": [0.5, -0.5]})
    other.properties["gap"] = 1.5
    atoms = AseAtomsAdaptor.get_atoms(salt)
    atoms.set_array("magmom", np.array([1.0, 2.0]))
    atoms.info["gap"] = 2.5
    source = LabelSource([other, atoms, salt], "magmom", level="atom")
    assert [entry.load().y.tolist() for entry in list(source)[:2]] == [[[0.5], [-0.5]], [[1.0], [2.0]]]
    with pytest.raises(InvalidStructureError, match="it has no value for any atom"):
        list(source)[2].load()
    gaps = [entry.load().y.item() for entry in StructureListSource([other, atoms, salt], target_names="gap")]
    assert gaps[:2] == [1.5, 2.5]
    assert np.isnan(gaps[2])


@pytest.mark.parametrize("source", [3, "one", "molecule"])
def test_what_is_no_list_is_refused(salt, source):
    given = {"one": salt, "molecule": AseAtomsAdaptor.get_atoms(salt)}.get(source, source)
    with pytest.raises(TypeError, match="source: expected a list of pymatgen structures, ASE atoms or Data, received"):
        open_source(given)


def test_what_no_structure_holds_is_named(salt):
    with pytest.raises(ValueError, match="target_names: expected names of what the structures hold, received 'gap'"):
        open_source([salt, salt], "gap")


def test_a_part_of_a_data_set_is_a_list(salt):
    crystals = [from_structure(salt), from_structure(salt)]
    crystals[1].gap = torch.tensor([[2.5]])
    source = open_source(torch.utils.data.Subset(crystals, [1, 1]), "gap")
    assert [entry.load().y.tolist() for entry in source] == [[[2.5]], [[2.5]]]
    assert list(open_source([])) == []
