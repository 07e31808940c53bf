import gzip
import json

import numpy as np
import pytest
from ase.db import connect
from ase.io import write
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.datasets import CompactStore, StructureListSource, open_source, write_compact_store
from torch_geometric_crystal.datasets.readers.ase_file import AseDatabaseSource, ExtendedXyzSource
from torch_geometric_crystal.datasets.readers.folder import FolderSource
from torch_geometric_crystal.datasets.readers.jarvis_json import JarvisSource
from torch_geometric_crystal.datasets.readers.matbench_json import MatbenchSource
from torch_geometric_crystal.datasets.readers.structure_files import StructureFilesSource
from torch_geometric_crystal.datasets.readers.table import TableSource


@pytest.fixture
def paths(tmp_path, salt):
    """One file of each kind, with the one crystal and the target 2.5 where there can be one."""
    dictionary = salt.as_dict()
    table = {"index": ["s"], "columns": ["structure", "target"], "data": [[dictionary, 2.5]]}
    (tmp_path / "matbench.json").write_text(json.dumps(table))
    (tmp_path / "swapped.json.gz").write_bytes(gzip.compress(json.dumps(dict(reversed(table.items()))).encode()))
    (tmp_path / "jarvis.json").write_text(" \n" + json.dumps([{"jid": "s", "atoms": dictionary, "target": 2.5}]))
    (tmp_path / "record.json").write_text(json.dumps({"jid": "s", "atoms": dictionary, "target": 2.5}))
    (tmp_path / "alignn").mkdir()
    (tmp_path / "alignn" / "id_prop.json").write_text((tmp_path / "jarvis.json").read_text())
    (tmp_path / "s.json").write_text(json.dumps(dictionary))
    (tmp_path / "table.csv").write_text("id,structure,target\ns,folder/s.cif,2.5\n")
    write_compact_store(tmp_path / "store.npz", [from_structure(salt, 2.5, "s")], "target")
    atoms = AseAtomsAdaptor.get_atoms(salt, msonable=False)
    for name in ("ase.db", "ase.json"):
        with connect(tmp_path / name, use_lock_file=False) as file:
            file.write(atoms, key_value_pairs={"jid": "s", "target": 2.5})
    atoms.info = {"structure_id": "s", "target": 2.5}
    write(tmp_path / "ase.xyz", atoms, format="extxyz")
    (tmp_path / "folder").mkdir()
    for name in ("s.cif", "folder/s.cif"):
        CifWriter(salt).write_file(tmp_path / name)
    (tmp_path / "folder/id_prop.csv").write_text("s,2.5\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("matbench.json", MatbenchSource),
        ("swapped.json.gz", MatbenchSource),
        ("jarvis.json", JarvisSource),
        ("table.csv", TableSource),
        ("store.npz", CompactStore),
        ("ase.db", AseDatabaseSource),
        ("ase.json", AseDatabaseSource),
        ("ase.xyz", ExtendedXyzSource),
        ("folder", FolderSource),
        ("folder/id_prop.csv", FolderSource),
        ("alignn", JarvisSource),
        ("record.json", JarvisSource),
        ("s.cif", StructureFilesSource),
        ("s.json", StructureFilesSource),
    ],
)
def test_each_kind_is_opened_by_its_reader_with_its_default_target(paths, salt, name, kind):
    source = open_source(paths / name)
    assert type(source) is kind
    (entry,) = source
    data = entry.load()
    assert entry.structure_id == data.structure_id == "s"
    assert sorted(data.z.tolist()) == [11, 17]
    assert np.isclose(abs(np.linalg.det(data.cell[0])), salt.volume, rtol=1e-5)
    if kind is StructureFilesSource:
        assert (source.target_names, entry.targets) == ((), None)
    else:
        assert source.target_names == ("target",)
        assert data.y.tolist() == [[2.5]]


def test_a_list_and_an_open_source_are_accepted(salt):
    source = open_source([salt])
    assert type(source) is StructureListSource
    assert open_source(source) is source
    assert repr(source) == "StructureListSource('structures')"


def test_the_target_reaches_the_reader(paths):
    with pytest.raises(ValueError, match="target: 'gap' is not in"):
        list(open_source(paths / "matbench.json", "gap"))


def test_a_structure_file_has_no_target(paths):
    with pytest.raises(ValueError, match=r"target: .*s.cif is a structure file, which has none; put id_prop.csv"):
        open_source(paths / "s.cif", "gap")


def test_an_absent_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*absent.json"):
        open_source(tmp_path / "absent.json")


@pytest.mark.parametrize("name", ["data.pkl", "data.pt", "data.txt", "data"])
def test_an_unknown_kind_is_refused_with_those_that_are_known(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"unknown kind of file. Supported: .*pickles are never read"):
        open_source(tmp_path / name)


def test_an_unknown_layout_of_json_is_refused(tmp_path):
    (tmp_path / "data.json.gz").write_bytes(gzip.compress(b'{"entries": []}'))
    with pytest.raises(ValueError, match="neither Matbench's layout"):
        open_source(tmp_path / "data.json.gz")


def test_the_fingerprint_of_files_changes_with_their_content(paths):
    before = open_source(paths / "s.cif").fingerprint()
    (paths / "s.cif").write_text((paths / "s.cif").read_text() + "\n")
    assert open_source(paths / "s.cif").fingerprint() != before
