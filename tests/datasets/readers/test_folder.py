import numpy as np
import pytest
from pymatgen.io.cif import CifWriter

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets import CrystalDataset, StructureWarning
from torch_geometric_crystal.datasets.readers.folder import FolderSource


@pytest.fixture
def folder(tmp_path, crystals):
    """a.cif, b.vasp and POSCAR_c, with files that are not structures."""
    CifWriter(crystals[0]).write_file(tmp_path / "a.cif")
    crystals[1].to_file(str(tmp_path / "b.vasp"), fmt="poscar")
    crystals[2].to_file(str(tmp_path / "POSCAR_c"), fmt="poscar")
    (tmp_path / "atom_init.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("notes")
    return tmp_path


def ids(source):
    return [entry.structure_id for entry in source]


def test_without_a_table_all_structures_are_read_by_name_without_targets(folder):
    source = FolderSource(folder)
    assert ids(source) == ["POSCAR_c", "a", "b"]
    assert source.target_names == ()
    assert [entry.load().num_nodes for entry in source] == [3, 1, 2]


@pytest.mark.parametrize(
    "text", ["b,1.5\na,-2\n", "b.vasp,1.5\na.cif,-2\n", "id,target\nb,1.5\na,-2\n", "\ufeffb,1.5\n\na,-2"]
)
def test_the_table_gives_order_and_targets_with_or_without_header_and_suffix(folder, text):
    (folder / "id_prop.csv").write_text(text, encoding="utf-8")
    source = FolderSource(folder)
    assert source.target_names == ("target",)
    assert ids(source) == ["b", "a"]
    assert [entry.load().y.tolist() for entry in source] == [[[1.5]], [[-2.0]]]


def test_a_header_names_the_targets_which_can_be_chosen(folder):
    (folder / "id_prop.csv").write_text("name,gap,energy\na,1,2\nb,,4\n")
    assert FolderSource(folder).target_names == ("gap", "energy")
    assert [entry.targets for entry in FolderSource(folder, "energy")] == [(2.0,), (4.0,)]
    assert np.isnan(list(FolderSource(folder))[1].targets[0])


def test_targets_without_a_header_are_numbered(folder):
    (folder / "id_prop.csv").write_text("a,1,2\nb,3,\n")
    assert FolderSource(folder).target_names == ("target_1", "target_2")
    assert np.isnan(list(FolderSource(folder))[1].targets[1])


def test_a_table_of_ids_alone_has_no_targets(folder):
    (folder / "id_prop.csv").write_text("b\na\n")
    assert ids(FolderSource(folder)) == ["b", "a"]
    assert [entry.targets for entry in FolderSource(folder)] == [None, None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("absent,1", "'absent': id_prop.csv names it, but there is no such file"),
        ("twice,1", r"'twice': several files match \(twice.cif, twice.vasp\)"),
        ("a,high", "'a': target 'y': 'high' is not a number"),
        ("a,inf", "'a': target 'y': 'inf' is not finite"),
        ("a,1,2", "'a': its row in id_prop.csv has 3 entries, not 2"),
        ("a", "'a': its row in id_prop.csv has 1 entries, not 2"),
    ],
)
def test_each_fault_of_a_row_is_named(folder, crystals, row, message):
    CifWriter(crystals[0]).write_file(folder / "twice.cif")
    crystals[0].to_file(str(folder / "twice.vasp"), fmt="poscar")
    (folder / "id_prop.csv").write_text(f"id,y\nb,1\n{row}\n")
    entries = list(FolderSource(folder))
    assert entries[0].load().y.tolist() == [[1.0]]
    with pytest.raises(InvalidStructureError, match=f"structure {message}"):
        entries[1].load()


def test_files_with_the_same_stem_are_told_apart_by_their_suffix(folder, crystals):
    crystals[3].to_file(str(folder / "a.vasp"), fmt="poscar")
    assert ids(FolderSource(folder)) == ["POSCAR_c", "a.cif", "a.vasp", "b"]


def test_a_corrupt_cif_among_good_ones_is_reported_by_file(folder, tmp_path_factory):
    text = (folder / "a.cif").read_text()
    (folder / "corrupt.cif").write_text(text[: len(text) // 2])
    cache = tmp_path_factory.mktemp("cache")
    with pytest.warns(StructureWarning, match="1 structures skipped"):
        dataset = CrystalDataset(folder, cache, on_error="skip")
    assert dataset.structure_ids == ["POSCAR_c", "a", "b"]
    ((name, message),) = dataset.errors
    assert name == "corrupt"
    assert message.startswith("not a readable CIF file (pymatgen: ")
    with pytest.raises(InvalidStructureError, match="structure 'corrupt'"):
        CrystalDataset(folder, cache)


def test_the_fingerprint_changes_with_each_file_and_option(folder):
    prints = [FolderSource(folder).fingerprint()]
    (folder / "id_prop.csv").write_text("id,y,z\na,1,2\n")
    prints += [FolderSource(folder).fingerprint(), FolderSource(folder, "z").fingerprint()]
    (folder / "a.cif").write_text((folder / "a.cif").read_text() + "\n")
    prints.append(FolderSource(folder).fingerprint())
    (folder / "b.vasp").rename(folder / "d.vasp")
    prints.append(FolderSource(folder).fingerprint())
    assert len(set(prints)) == 5


def test_an_absent_folder_or_target_is_named(folder):
    with pytest.raises(NotADirectoryError, match=r"no such folder: .*absent"):
        FolderSource(folder / "absent")
    with pytest.raises(ValueError, match=r"target: 'gap' is not in .*id_prop.csv; it has none"):
        list(FolderSource(folder, "gap").target_names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "id_prop.csv is empty"),
        (b"a;1\nb;2\n", "its columns are separated by semicolons. Separate them by commas"),
        (b"a\t1\nb\t2\n", "separated by tabs"),
        (b"a 1\nb 2\n", "separated by spaces"),
        ("id,\u00e9nergie\na,1\n".encode("latin-1"), "not text in UTF-8 .byte 3 is 0xe9.. Save it as UTF-8"),
        ("a,1\n".encode("utf-16"), "not text in UTF-8"),
    ],
)
def test_a_table_that_is_no_table_is_refused_with_the_remedy(folder, content, message):
    (folder / "id_prop.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        FolderSource(folder).target_names  # noqa: B018


def test_a_folder_whose_files_lie_deeper_is_refused(folder):
    (folder.parent / "outer").mkdir()
    folder.rename(folder.parent / "outer" / "inner")
    with pytest.raises(ValueError, match="no CIF, POSCAR or xyz file lies in this folder"):
        list(FolderSource(folder.parent / "outer"))
    (folder.parent / "outer" / "inner").rename(folder)


def test_commas_at_the_end_of_rows_are_no_columns(folder):
    (folder / "id_prop.csv").write_text("id,band_gap,\na,1.0,,\nb,2.0,\n")
    source = FolderSource(folder)
    assert source.target_names == ("band_gap",)
    assert [entry.load().y.tolist() for entry in source] == [[[1.0]], [[2.0]]]


def test_two_files_of_one_stem_are_both_read_by_their_suffix(folder, crystals):
    crystals[3].to_file(str(folder / "a.vasp"), fmt="poscar")
    (folder / "id_prop.csv").write_text("a.cif,1\na.vasp,2\nb.vasp,3\n")
    entries = list(FolderSource(folder))
    assert [entry.structure_id for entry in entries] == ["a.cif", "a.vasp", "b"]
    assert [entry.load().y.item() for entry in entries] == [1.0, 2.0, 3.0]


def test_a_comma_too_many_in_one_row_does_not_change_the_others_without_a_word(folder):
    (folder / "id_prop.csv").write_text("a,1\nb,2,7\n")
    first, second = FolderSource(folder)
    with pytest.raises(InvalidStructureError, match=r"its row in id_prop.csv has 2 entries, not 3"):
        first.load()
    assert second.load().y.tolist() == [[2.0, 7.0]]
