import json
import sys

import pytest
from pymatgen.io.cif import CifWriter

from torch_geometric_crystal.datasets import read_structures


@pytest.fixture
def folder(tmp_path, crystals):
    folder = tmp_path / "folder"
    folder.mkdir()
    CifWriter(crystals[0]).write_file(folder / "b.cif")
    crystals[1].to_file(str(folder / "POSCAR_a"), fmt="poscar")
    (folder / "corrupt.cif").write_text("data_x\n_cell_length_a")
    (folder / "notes.txt").write_text("")
    return folder


def test_one_result_per_file_in_order_with_errors_in_words(folder, tmp_path, crystals):
    CifWriter(crystals[2]).write_file(tmp_path / "own.cif")
    results = read_structures([tmp_path / "own.cif", str(folder), tmp_path / "absent.cif"])
    assert [r.structure_id for r in results] == ["own", "POSCAR_a", "b", "corrupt", "absent"]
    assert [r.data is not None for r in results] == [True, True, True, False, False]
    assert [r.data.num_nodes for r in results[:3]] == [3, 2, 1]
    assert results[0].data.structure_id == "own"
    assert results[3].error.startswith("not a readable CIF file")
    assert results[4].error == "no such file"
    assert results[1].path == folder / "POSCAR_a"


def test_a_single_path_is_accepted(folder):
    assert len(read_structures(folder)) == 3
    assert len(read_structures(str(folder / "b.cif"))) == 1


def test_files_of_the_same_name_are_told_apart_by_their_paths(folder, tmp_path, crystals):
    CifWriter(crystals[2]).write_file(tmp_path / "b.cif")
    results = read_structures([folder / "b.cif", tmp_path / "b.cif"])
    assert [r.structure_id for r in results] == [str(folder / "b.cif"), str(tmp_path / "b.cif")]
    assert [r.data.structure_id for r in results] == [r.structure_id for r in results]


def test_a_file_may_be_given_twice(folder):
    results = read_structures([folder / "b.cif", folder / "b.cif"])
    assert [r.structure_id for r in results] == [str(folder / "b.cif")] * 2


def test_an_empty_folder_is_an_error_of_its_own(tmp_path):
    (result,) = read_structures(tmp_path)
    assert result.error == "a folder without CIF, POSCAR or xyz files"


def test_no_paths_give_no_results():
    assert read_structures([]) == []


def test_a_missing_package_is_an_error_of_the_file_that_needs_it(tmp_path, folder, monkeypatch):
    (tmp_path / "a.xyz").write_text('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nH 0 0 0\n')
    monkeypatch.setitem(sys.modules, "ase", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    results = read_structures([tmp_path / "a.xyz", folder / "b.cif"])
    assert "pip install 'torch_geometric_crystal[ase]'" in results[0].error
    assert results[1].error is None


def test_a_file_of_many_structures_gives_each_its_result(tmp_path, folder, crystals):
    ase_io = pytest.importorskip("ase.io")
    frames = [crystal.to_ase_atoms() for crystal in crystals[:2]]
    ase_io.write(tmp_path / "frames.extxyz", frames)
    rows = [f"s{k},{name}" for k, name in enumerate(("b.cif", "absent.cif"))]
    (folder / "table.csv").write_text("\n".join(["id,structure", *rows]))
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    results = read_structures([tmp_path / "frames.extxyz", folder / "table.csv", tmp_path / "odd.csv"])
    assert [r.structure_id for r in results[2:4]] == ["s0", "s1"]
    assert [r.data is not None for r in results] == [True, True, True, False, False]
    assert [r.data.num_nodes for r in results[:3]] == [len(crystals[0]), len(crystals[1]), len(crystals[0])]
    assert [r.path.name for r in results] == ["frames.extxyz"] * 2 + ["table.csv"] * 2 + ["odd.csv"]
    assert "none of its columns ('a', 'b') holds structures" in results[4].error


@pytest.mark.parametrize("records", [1, 2])
def test_records_are_read_however_many_there_are(tmp_path, records):
    atoms = {"lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "coords": [[0, 0, 0]], "elements": ["Fe"]}
    content = [{"jid": f"j{k}", "atoms": atoms} for k in range(records)]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "id_prop.csv").write_text("a,1")
    results = read_structures([tmp_path / name for name in ("a.json", "deep.json", "id_prop.csv")])
    assert [r.structure_id for r in results[:records]] == [f"j{k}" for k in range(records)]
    assert [r.error is None for r in results] == [True] * records + [False, False]
    assert results[-1].error == "a table of targets. Give its folder"


def test_structures_of_two_sets_are_told_apart(tmp_path, folder):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("id,structure\n" + "".join(f"s{k},../folder/b.cif\n" for k in (0, 1)))
    results = read_structures([tmp_path / "one/t.csv", tmp_path / "two/t.csv", folder / "b.cif"])
    assert [r.structure_id for r in results] == [
        f"{tmp_path / f}/t.csv:s{k}" for f in ("one", "two") for k in (0, 1)
    ] + ["b"]
    assert not any(r.error for r in results)
