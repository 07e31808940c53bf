import json

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.datasets import CrystalDataset, open_source
from torch_geometric_crystal.datasets.readers.data_frame import DataFrameSource


@pytest.fixture
def frame(salt, tmp_path):
    """The same crystal in every form that a cell can have."""
    CifWriter(salt).write_file(tmp_path / "s.cif")
    forms = {
        "structure": salt,
        "atoms": AseAtomsAdaptor.get_atoms(salt, msonable=False),
        "data": from_structure(salt),
        "dictionary": salt.as_dict(),
        "json": json.dumps(salt.as_dict()),
        "cif": (tmp_path / "s.cif").read_text(),
        "path": str(tmp_path / "s.cif"),
    }
    columns = {"structure": pd.Series(forms, dtype=object), "gap": np.arange(7.0), "energy": [None, *range(6)]}
    return pd.DataFrame(columns)


def test_every_form_of_a_structure_is_read_and_named_by_the_index(frame, salt):
    entries = list(open_source(frame, "gap"))
    assert [entry.structure_id for entry in entries] == list(frame.index)
    assert [entry.targets for entry in entries] == [(float(k),) for k in range(7)]
    for entry in entries:
        data = entry.load()
        assert data.z.tolist() == [11, 17]
        assert np.isclose(abs(np.linalg.det(data.cell[0])), salt.volume, rtol=1e-5)


def test_absent_values_are_missing_targets(frame):
    frame["flag"] = pd.array([True, None] + [False] * 5, dtype="boolean")
    entries = list(DataFrameSource(frame, ["energy", "flag"]))
    assert np.isnan(entries[0].targets[0])
    assert entries[0].targets[1] == 1.0
    assert entries[1].targets[0] == 0.0
    assert np.isnan(entries[1].targets[1])


def test_a_column_called_target_is_the_target_and_others_are_offered(frame):
    assert DataFrameSource(frame).target_names == ()
    assert DataFrameSource(frame).available_targets == ("gap", "energy")
    assert DataFrameSource(frame.rename(columns={"gap": "target"})).target_names == ("target",)


def test_names_can_come_from_a_column(frame):
    frame["material_id"] = [f"mp-{k}" for k in range(7)]
    assert next(iter(DataFrameSource(frame))).structure_id == "mp-0"
    frame["own"] = list("abcdefg")
    assert next(iter(DataFrameSource(frame, id_column="own"))).structure_id == "a"


def test_a_data_set_is_made_of_it_once(frame, tmp_path):
    for _ in range(2):
        dataset = CrystalDataset(frame, tmp_path / "cache", target="gap", num_workers=0)
        assert dataset.structure_ids == list(frame.index)
        assert dataset.y.flatten().tolist() == list(range(7))
    assert len(list((tmp_path / "cache").glob("*.pt"))) == 1


@pytest.mark.parametrize(
    ("column", "row", "value"), [("gap", "cif", 9.0), ("structure", "cif", ""), ("structure", "dictionary", {})]
)
def test_the_fingerprint_changes_with_the_content(frame, column, row, value):
    first = DataFrameSource(frame, "gap").fingerprint()
    assert DataFrameSource(frame.copy(), "gap").fingerprint() == first
    changed = frame.copy()
    changed[column] = [value if name == row else old for name, old in frame[column].items()]
    assert DataFrameSource(changed, "gap").fingerprint() != first


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (None, "its structure is empty"),
        (float("nan"), "its structure is empty"),
        ("", "its structure is empty"),
        (3, "its structure is of type int"),
        ({"a": 1}, "malformed structure dictionary"),
        ("absent.cif", "absent.cif cannot be read"),
        ("data_x\nnothing", "not a readable CIF"),
    ],
)
def test_a_cell_without_a_structure_is_a_fault_of_its_row(salt, structure, message, tmp_path):
    frame = pd.DataFrame({"structure": pd.Series([structure, salt], dtype=object)})
    with pytest.warns(UserWarning, match="1 structures skipped"):
        dataset = CrystalDataset(frame, tmp_path, on_error="skip", num_workers=0)
    assert dataset.structure_ids == ["1"]
    ((name, error),) = dataset.errors
    assert name == "0"
    assert message in error


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns="structure"), {}, "none of its columns .* holds structures"),
        (lambda f: f, {"target": "volume"}, "target: 'volume' is not in the DataFrame; it has 'structure', 'gap'"),
        (lambda f: f, {"structure_column": "geometry"}, "no column 'geometry'"),
        (lambda f: f.rename(columns={"gap": "energy"}), {}, "frame: expected columns of different names"),
    ],
)
def test_a_column_that_is_not_there_is_named(frame, change, options, message):
    with pytest.raises(ValueError, match=message):
        DataFrameSource(change(frame), **options)


def test_a_value_that_is_not_a_number_is_named(frame):
    frame["word"] = "high"
    entry = next(iter(DataFrameSource(frame, "word")))
    with pytest.raises(ValueError, match="target 'word': 'high' is not a number"):
        entry.load()


def test_the_fingerprint_changes_with_the_file_that_a_cell_names(tmp_path, monkeypatch):
    frame, lengths = pd.DataFrame({"path": ["POSCAR"]}), []
    for folder, length in (("calc1", 4.0), ("calc2", 6.0)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        Structure(Lattice.cubic(length), ["Po"], [[0, 0, 0]]).to_file("POSCAR", fmt="poscar")
        dataset = CrystalDataset(frame, tmp_path / "cache", num_workers=0)
        lengths.append(dataset[0].cell[0, 0, 0].item())
    assert lengths == [4.0, 6.0]


def test_the_fingerprint_has_every_element_of_an_array():
    coords = np.arange(6000.0).reshape(2000, 3)
    frames = []
    for value in (0.0, 1.0):
        changed = coords.copy()
        changed[1000, 0] = value
        crystal = {"lattice_mat": 50.0 * np.eye(3), "coords": changed, "elements": ["Po"] * 2000, "cartesian": True}
        frames.append(pd.DataFrame({"atoms": [crystal]}))
    assert len({DataFrameSource(frame).fingerprint() for frame in frames}) == 2


def test_a_cell_too_long_for_the_name_of_a_file_is_one_fault():
    source = DataFrameSource(pd.DataFrame({"id": ["long"], "structure": ["x" * 600]}))
    assert source.fingerprint() == source.fingerprint()
    with pytest.raises(InvalidStructureError, match="long"):
        next(iter(source)).load()
