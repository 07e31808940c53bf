import pytest
import torch
from pymatgen.core import Lattice, Structure

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets import CompactStore, CrystalDataset, StructureListSource, convert

ALLOY = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])


def test_a_source_becomes_a_store_of_the_same_crystals(crystals, tmp_path):
    source = StructureListSource(crystals, range(6), target_names="energy")
    result = convert(source, tmp_path / "store.npz")
    assert result == (6, ("energy",), [], [])
    stored = CrystalDataset(tmp_path / "store.npz", cache=False)
    for data, expected in zip(stored, CrystalDataset(source, cache=False), strict=True):
        assert data.structure_id == expected.structure_id
        assert all(torch.equal(data[key], expected[key]) for key in ("z", "cell", "pbc", "y"))
        # two roundings to float32, of the fraction and of the position, below 6 A
        assert torch.allclose(data.pos, expected.pos, rtol=0, atol=2e-6)


def test_bad_structures_are_skipped_and_reported(crystals, tmp_path):
    close = Structure(Lattice.cubic(4), ["H", "H"], [[0, 0, 0], [0, 0, 0.001]])
    result = convert([crystals[0], ALLOY, close], tmp_path / "store.npz", on_error="skip")
    assert result.num_structures == 2
    assert [name for name, _ in result.errors] == ["1"]
    assert len(result.notes) == 1
    assert CompactStore(tmp_path / "store.npz").structure_ids == ["0", "2"]


def test_a_bad_structure_leaves_no_file(crystals, tmp_path):
    with pytest.raises(InvalidStructureError, match="structure '1': site 0 is disordered"):
        convert([crystals[0], ALLOY], tmp_path / "store.npz")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write_is_refused(tmp_path):
    with pytest.raises(ValueError, match="crystals: expected at least one"):
        convert([ALLOY], tmp_path / "store.npz", on_error="skip")


def test_a_wrong_option_is_named(tmp_path):
    with pytest.raises(ValueError, match="on_error: expected one of 'raise', 'skip'"):
        convert([], tmp_path / "store.npz", on_error="stop")
