"""Classes by number or name, and values of each atom, from the formats that have them."""

import json

import numpy as np
import pytest

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import make_crystal, to_structure
from torch_geometric_crystal.datasets import CrystalDataset, LabelSource
from torch_geometric_crystal.datasets.labels import class_name, ordered_classes

ATOMS = [[1, 8], [3], [11, 17, 17]]


def structures():
    return [
        to_structure(make_crystal(z, 4.0 * np.random.default_rng(0).random((len(z), 3)), 4.0 * np.eye(3), [True] * 3))
        for z in ATOMS
    ]


@pytest.fixture
def folder(tmp_path):
    """Writes three CIF files with labels in id_prop.csv, and returns the folder."""

    def make(*labels):
        for index, structure in enumerate(structures()):
            structure.to(filename=str(tmp_path / f"x{index}.cif"))
        rows = [f'x{index},"{label}"' for index, label in enumerate(labels)]
        (tmp_path / "id_prop.csv").write_text("id,phase\n" + "\n".join(rows))
        return str(tmp_path)

    return make


@pytest.fixture
def records(tmp_path):
    """Writes records with further entries, and returns the file."""

    def make(*more):
        content = [
            {"jid": f"r{index}", "structure": structure.as_dict()} | extra
            for index, (structure, extra) in enumerate(zip(structures(), more, strict=True))
        ]
        path = tmp_path / "records.json"
        path.write_text(json.dumps(content))
        return str(path)

    return make


def targets(source, **settings):
    return [entry.load().y.tolist() for entry in LabelSource(source, **settings)]


def test_texts_become_classes_in_the_order_in_which_they_sort(folder):
    source = LabelSource(folder("rutile", "", " cubic "), classes=())
    assert source.classes == ("cubic", "rutile")
    loaded = [entry.load().y for entry in source]
    assert [y.tolist() for y in (loaded[0], loaded[2])] == [[[1.0]], [[0.0]]]
    assert bool(loaded[1].isnan().all())


def test_numbers_are_ordered_by_size(folder):
    source = LabelSource(folder("10", "9.0", "10"), classes=())
    assert source.classes == ("9", "10")
    assert targets(source) == [[[10.0]], [[9.0]], [[10.0]]]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("a b ", "a b"),
        (1, "1"),
        (2.0, "2"),
        ("3.0", "3"),
        (True, "True"),
        ("NaN", ""),
        ("NA", ""),
        ("Na", "Na"),
        (None, ""),
        (np.float32(4), "4"),
    ],
)
def test_names_of_labels(label, name):
    assert class_name(label) == name


def test_names_that_are_not_all_numbers_are_texts():
    assert ordered_classes({"10", "9", "x"}) == ("10", "9", "x")
    assert ordered_classes({"10", "9", "-1"}) == ("-1", "9", "10")


def test_fractions_are_no_classes(folder):
    with pytest.raises(ValueError, match=r"target 'phase': classes are texts or whole numbers, received '0.5'"):
        LabelSource(folder("0.5", "1", "0"), classes=())


def test_one_class_is_none(folder):
    with pytest.raises(ValueError, match=r"two classes at least in 'phase', received \['a'\]"):
        LabelSource(folder("a", "a", ""), classes=())


def test_classes_of_a_model_are_kept_and_a_foreign_label_makes_its_structure_faulty(folder):
    source = LabelSource(folder("b", "x", "a"), classes=("b", "a", "c"))
    entries = list(source)
    assert [entries[0].load().y.item(), entries[2].load().y.item()] == [0.0, 1.0]
    with pytest.raises(InvalidStructureError, match=r"'x1': target 'phase': 'x' is none of the classes b, a, c"):
        entries[1].load()


def test_text_without_a_classification_says_what_to_choose(folder):
    from torch_geometric_crystal.datasets import open_source

    with pytest.raises(InvalidStructureError, match=r"'rutile' is not a number.*choose the task classification"):
        next(iter(open_source(folder("rutile", "", "a")))).load()


def test_lists_in_json_are_values_of_atoms(records):
    path = records({"charge": [1, None]}, {"charge": [0.5]}, {"charge": [1, 2, 3]})
    dataset = CrystalDataset(LabelSource(path, "charge", level="atom"), cache=False, log=False)
    assert dataset.target_names == ("charge",)
    assert dataset[0].y.shape == (2, 1)
    assert bool(dataset[0].y[1].isnan())
    assert dataset[2].y.tolist() == [[1.0], [2.0], [3.0]]


def test_several_targets_of_atoms_are_columns_and_an_absent_one_is_unknown(records):
    both = {"a": [1, 2], "b": [3, 4]}
    path = records(both, {"a": [5]}, {"a": [1, 2, 3], "b": None})
    entries = list(LabelSource(path, ["a", "b"], level="atom"))
    assert entries[0].load().y.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert entries[1].load().y.isnan().tolist() == [[False, True]]


def test_properties_of_pymatgens_sites_are_values_of_atoms(tmp_path):
    content = []
    for structure in structures():
        structure.add_site_property("magmom", [float(z) for z in structure.atomic_numbers])
        content.append({"structure": structure.as_dict()})
    (tmp_path / "sites.json").write_text(json.dumps(content))
    assert targets(tmp_path / "sites.json", target="magmom", level="atom") == [[[float(z)] for z in zs] for zs in ATOMS]


def test_columns_of_extended_xyz_are_values_of_atoms(tmp_path):
    import ase.io

    images = []
    for structure in structures():
        atoms = structure.to_ase_atoms()
        atoms.set_array("shift", np.array(structure.atomic_numbers) / 2)
        atoms.set_array("field", np.ones((len(atoms), 3)))
        images.append(atoms)
    ase.io.write(tmp_path / "a.extxyz", images, format="extxyz")
    assert targets(tmp_path / "a.extxyz", target="shift", level="atom") == [[[z / 2] for z in zs] for zs in ATOMS]
    with pytest.raises(ValueError, match="'field' is not in"):
        list(LabelSource(tmp_path / "a.extxyz", "field", level="atom"))


def test_lists_in_a_table_are_values_of_atoms(folder):
    assert targets(folder("[1, 2]", "[3]", "[4, null, 5]"), level="atom")[1] == [[3.0]]


def test_classes_of_atoms(records):
    path = records({"kind": ["m", "o"]}, {"kind": ["m"]}, {"kind": ["m", "", "o"]})
    source = LabelSource(path, "kind", level="atom", classes=())
    assert source.classes == ("m", "o")
    assert next(iter(source)).load().y.tolist() == [[0.0], [1.0]]
    assert list(source)[2].load().y.isnan().flatten().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "it has 2 atoms but 1 values a target. Give a value for each atom"),
        ([[1.0], [2.0]], "it has several values an atom; the models predict scalars"),
        (["x", 1.0], "'x' is not a number. Give a list with a number for each atom"),
    ],
)
def test_lists_that_do_not_fit_are_faults_of_their_structure(records, value, message):
    path = records({"charge": value}, {"charge": [1]}, {"charge": [1, 2, 3]})
    entries = list(LabelSource(path, "charge", level="atom"))
    with pytest.raises(InvalidStructureError, match=message):
        entries[0].load()
    assert entries[1].load().y.item() == 1.0


def test_value_of_a_crystal_is_no_list(folder):
    with pytest.raises(InvalidStructureError, match="'1' is not a list with a value for each atom"):
        next(iter(LabelSource(folder("1", "2", "3"), level="atom"))).load()


def test_list_without_the_level_says_what_to_choose(tmp_path):
    table = {
        "index": [0],
        "columns": ["structure", "charge"],
        "data": [[structures()[0].as_dict(), [1.0, 2.0]]],
    }
    (tmp_path / "m.json").write_text(json.dumps(table))
    from torch_geometric_crystal.datasets import open_source

    with pytest.raises(InvalidStructureError, match="to learn a value for each atom, choose the level atom"):
        next(iter(open_source(tmp_path / "m.json"))).load()
    assert targets(tmp_path / "m.json", level="atom") == [[[1.0], [2.0]]]


def test_how_labels_are_read_is_part_of_the_fingerprint(folder):
    path = folder("0", "1", "0")
    prints = [LabelSource(path, classes=classes).fingerprint() for classes in (None, (), ("1", "0"))]
    assert len(set(prints)) == 3
    assert LabelSource(path, classes=()).fingerprint() == prints[1]


def test_source_without_targets_is_refused(tmp_path):
    structures()[0].to(filename=str(tmp_path / "a.cif"))
    with pytest.raises(ValueError, match="target: expected a column of"):
        LabelSource(tmp_path, classes=())
