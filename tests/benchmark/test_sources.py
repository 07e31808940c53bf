import pytest

from torch_geometric_crystal.benchmark.sources import (
    bundled_datasets,
    choose_part,
    load_parts,
    open_dataset,
    random_split,
)
from torch_geometric_crystal.data import to_structure
from torch_geometric_crystal.datasets import StructureWarning
from torch_geometric_crystal.transforms import PeriodicRadiusGraph


@pytest.fixture
def folder(make_crystals, tmp_path):
    """Ten CIF files with two targets in id_prop.csv."""
    lines = ["id,first,second"]
    for crystal in make_crystals(10, num_targets=2):
        to_structure(crystal).to(filename=str(tmp_path / f"{crystal.structure_id}.cif"))
        lines.append(",".join([crystal.structure_id, *map(str, crystal.y[0].tolist())]))
    (tmp_path / "id_prop.csv").write_text("\n".join(lines))
    return str(tmp_path)


def test_random_split_is_a_partition_that_the_seed_determines():
    split = random_split(25, 0.1, 0.2, seed=3)
    assert sorted(split["train"] + split["val"] + split["test"]) == list(range(25))
    assert (len(split["val"]), len(split["test"])) == (2, 5)
    assert random_split(25, 0.1, 0.2, seed=3) == split != random_split(25, 0.1, 0.2, seed=4)


def test_small_shares_still_give_a_crystal():
    split = random_split(4, 0.01, 0.0, seed=0)
    assert {part: len(indices) for part, indices in split.items()} == {"train": 3, "val": 1, "test": 0}


def test_too_few_crystals_to_split_are_refused():
    with pytest.raises(ValueError, match="data: expected more crystals"):
        random_split(2, 0.1, 0.1, seed=0)


def test_folder_is_read_with_its_first_target(folder):
    parts = load_parts(folder, (), PeriodicRadiusGraph(cutoff=3.0))
    assert parts.target_names == ("first",)
    assert {part: len(crystals) for part, crystals in parts.parts.items()} == {"train": 8, "val": 1, "test": 1}
    assert parts.parts["train"][0].edge_cutoff.item() == 3.0
    assert len(choose_part(parts, "all")) == 10


def test_targets_are_chosen_by_name(folder):
    assert load_parts(folder, ("second", "first"), None).target_names == ("second", "first")
    with pytest.raises(ValueError, match="'third' is not in"):
        load_parts(folder, ("third",), None)


def test_crystals_without_targets_cannot_be_trained_on(folder, tmp_path):
    (tmp_path / "id_prop.csv").unlink()
    with pytest.raises(ValueError, match=r"data: expected crystals with at least one target.*into an id_prop.csv"):
        load_parts(folder, (), None)


def test_where_no_target_is_chosen_those_that_there_are_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("material_id,cif,energy,gap\na,b.cif,1,2\n")
    with pytest.raises(ValueError, match="choose one with --target: it has 'energy', 'gap'"):
        load_parts(str(tmp_path / "t.csv"), (), None)


def test_unknown_data_names_the_bundled_sets():
    with pytest.raises(FileNotFoundError, match="'flla_2014' is neither a path nor one of flla_2015"):
        open_dataset("flla_2014", (), None)


def test_bundled_set_comes_with_its_split_and_units():
    parts = load_parts("elastic_2015", (), None)
    assert parts.target_names[0] == next(iter(bundled_datasets()["elastic_2015"].units))
    assert parts.units[0]
    assert sum(len(crystals) for crystals in parts.parts.values()) == 1181
    assert all(len(crystals) > 50 for crystals in parts.parts.values())


@pytest.mark.parametrize(("part", "message"), [("training", "split: expected one of"), ("test", "which has none")])
def test_part_must_exist(parts, part, message):
    parts.parts["test"] = []
    with pytest.raises(ValueError, match=message):
        choose_part(parts, part)


def test_crystals_without_a_value_are_left_out_before_the_split(folder, tmp_path):
    header, *rows = (tmp_path / "id_prop.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    for index in (0, 4, 5):
        cells[index][1:] = ["", ""]
    (tmp_path / "id_prop.csv").write_text("\n".join([header, *map(",".join, cells)]))
    with pytest.warns(StructureWarning, match="3 of 10 crystals have no value of any target: left out"):
        parts = load_parts(folder, ("first", "second"), None)
    assert {part: len(crystals) for part, crystals in parts.parts.items()} == {"train": 5, "val": 1, "test": 1}
    assert not any(crystal.y.isnan().any() for crystal in choose_part(parts, "all"))


def test_a_part_without_a_value_of_a_target_is_warned_of(folder, tmp_path):
    header, *rows = (tmp_path / "id_prop.csv").read_text().splitlines()
    (alone,) = load_parts(folder, ("first",), None).parts["val"]
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[2] = "" if row[0] == alone.structure_id else row[2]
    (tmp_path / "id_prop.csv").write_text("\n".join([header, *map(",".join, cells)]))
    with pytest.warns(StructureWarning, match="^no crystal of the val part has a value of 'second'$"):
        load_parts(folder, ("first", "second"), None)
