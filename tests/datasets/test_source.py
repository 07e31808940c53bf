import math

import pytest

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource
from torch_geometric_crystal.datasets.source import check_names, existing_file, parse_target, refuse_repeated_ids


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1.0), ("2.5", 2.5), (" -1e-3 ", -1e-3), (True, 1.0), ("false", 0.0), ("True", 1.0)]
)
def test_numbers_and_booleans_are_targets(value, number):
    assert parse_target(value) == number


@pytest.mark.parametrize("value", [None, "", "na", " NaN ", "None", "null", "N/A", "-", float("nan")])
def test_marks_of_absence_are_nan(value):
    assert math.isnan(parse_target(value))


@pytest.mark.parametrize("value", ["metal", [], {}, "1,5", float("inf"), "-inf"])
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="is not"):
        parse_target(value)


def test_an_entry_with_a_target_that_is_no_number_raises_when_loaded(salt):
    entries = list(StructureListSource([salt, salt], targets=[1.0, math.inf], target_names="gap"))
    assert entries[0].load().y.tolist() == [[1.0]]
    with pytest.raises(InvalidStructureError, match="structure '1': target 'gap': inf is not finite"):
        entries[1].load()


def test_the_second_of_two_equal_ids_is_refused(salt):
    entries = refuse_repeated_ids(list(StructureListSource([salt] * 3, structure_ids=["a", "b", "a"])))
    assert [entry.structure_id for entry in entries] == ["a", "b", "a"]
    assert entries[0].load().structure_id == "a"
    with pytest.raises(InvalidStructureError, match="structure 'a': its id occurs 2 times"):
        entries[2].load()


def test_an_absent_target_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match="target: 'gap' is not in file; it has 'energy', 'volume'"):
        check_names(["gap"], ["energy", "volume"], "file")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*absent"):
        existing_file(tmp_path / "absent")
