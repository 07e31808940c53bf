import csv
import json

import pytest
from pymatgen.io.cif import CifWriter

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.readers.table import TableSource


def write(tmp_path, header, rows):
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def cells(tmp_path, crystals):
    """The same crystal as JSON, as JARVIS JSON, as the text of a CIF and as a path."""
    crystal = crystals[1]
    CifWriter(crystal).write_file(tmp_path / "crystal.cif")
    jarvis = {
        "lattice_mat": crystal.lattice.matrix.tolist(),
        "coords": crystal.cart_coords.tolist(),
        "elements": [site.specie.symbol for site in crystal],
        "cartesian": True,
    }
    return [json.dumps(crystal.as_dict()), json.dumps(jarvis), str(CifWriter(crystal)), "crystal.cif"]


def test_json_cif_text_and_paths_are_read(tmp_path, cells, crystals):
    path = write(tmp_path, ["id", "structure", "gap"], [[f"s{k}", cell, k] for k, cell in enumerate(cells)])
    for k, entry in enumerate(TableSource(path, "gap")):
        data = entry.load()
        assert data.structure_id == f"s{k}"
        assert data.y.tolist() == [[float(k)]]
        assert sorted(data.z.tolist()) == sorted(crystals[1].atomic_numbers)


def test_usual_columns_are_found_and_others_can_be_named(tmp_path, cells):
    path = write(tmp_path, ["", "material_id", "CIF", "target", "label"], [[0, "mp-1", cells[2], 5, "x"]])
    (entry,) = TableSource(path)
    assert (entry.structure_id, entry.targets) == ("mp-1", (5.0,))
    (entry,) = TableSource(path, id_column="label", structure_column="CIF")
    assert entry.structure_id == "x"


def test_without_ids_rows_are_numbered_and_without_a_choice_there_is_no_target(tmp_path, cells):
    entries = list(TableSource(write(tmp_path, ["structure", "gap"], [[cell, 1] for cell in cells])))
    assert [entry.structure_id for entry in entries] == ["0", "1", "2", "3"]
    assert entries[0].targets is None


def test_a_cell_larger_than_the_csv_limit_is_read(tmp_path, cells):
    limit = csv.field_size_limit()
    big = json.dumps(json.loads(cells[0]) | {"comment": "x" * (limit + 1)})
    (entry,) = TableSource(write(tmp_path, ["structure"], [[big]]))
    assert entry.load().num_nodes == 2
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("cell", "message"),
    [("", "its structure is empty"), ("{broken", "its structure is not JSON"), ("absent.cif", "cannot be read")],
)
def test_a_bad_cell_is_named(tmp_path, cell, message):
    (entry,) = TableSource(write(tmp_path, ["id", "structure"], [["bad", cell]]))
    with pytest.raises(InvalidStructureError, match=f"structure 'bad': .*{message}"):
        entry.load()


def test_an_absent_column_is_named(tmp_path):
    path = write(tmp_path, ["name", "formula"], [["a", "NaCl"]])
    with pytest.raises(ValueError, match=r"none of its columns .* holds structures"):
        list(TableSource(path))
    with pytest.raises(ValueError, match="has no column 'poscar'; it has 'name', 'formula'"):
        list(TableSource(path, structure_column="poscar"))
    with pytest.raises(ValueError, match="target: 'gap' is not in"):
        list(TableSource(path, "gap", structure_column="formula"))


def test_the_fingerprint_changes_with_the_table_the_files_and_the_options(tmp_path, cells):
    path = write(tmp_path, ["id", "structure", "gap"], [["a", "crystal.cif", 1]])
    prints = [TableSource(path).fingerprint(), TableSource(path, "gap").fingerprint()]
    (tmp_path / "crystal.cif").write_text(cells[2] + "\n")
    prints.append(TableSource(path).fingerprint())
    prints.append(TableSource(write(tmp_path, ["id", "structure"], [["b", "crystal.cif"]])).fingerprint())
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty. Write a header"),
        ("id;cif;target\n1;a.cif;2\n", "not separated by commas"),
        ("id,target\n1,2\n", "none of its columns .'id', 'target'. holds structures. Call it one of structure, cif"),
    ],
)
def test_a_table_of_another_layout_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(TableSource(tmp_path / "t.csv"))


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("id,cif,\u00e9\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not text in UTF-8"):
        list(TableSource(tmp_path / "t.csv"))


@pytest.mark.parametrize(("row", "number"), [("b,x.cif", 2), ("b,x.cif,1,2", 4), ("b", 1)])
def test_a_row_of_another_length_is_a_fault_of_its_structure(tmp_path, row, number):
    (tmp_path / "t.csv").write_text(f"id,path,target\na,x.cif,1\n\n{row}\n")
    first, second = TableSource(tmp_path / "t.csv")
    assert (first.targets, second.structure_id) == ((1.0,), "b")
    with pytest.raises(InvalidStructureError, match=f"row 2 has {number} cells for 3 columns"):
        second.load()


def test_a_cell_too_long_for_the_name_of_a_file_is_one_fault(tmp_path):
    rows = [["long", "x" * 600], ["absent", "none.cif"]]
    source = TableSource(write(tmp_path, ["id", "structure"], rows))
    assert source.fingerprint() == source.fingerprint()
    for entry in source:
        with pytest.raises(InvalidStructureError, match=entry.structure_id):
            entry.load()
