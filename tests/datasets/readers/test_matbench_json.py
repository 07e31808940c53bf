import gzip
import json

import numpy as np
import pytest

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.readers.matbench_json import MatbenchSource


@pytest.fixture
def table(crystals):
    rows = [[c.as_dict(), 0.5 * k, k % 2 == 0] for k, c in enumerate(crystals)]
    return {"index": list(range(6)), "columns": ["structure", "gap", "metal"], "data": rows}


def write(tmp_path, table):
    path = tmp_path / "table.json.gz"
    path.write_bytes(gzip.compress(json.dumps(table).encode()))
    return path


def test_all_columns_but_the_structures_are_targets(tmp_path, table):
    source = MatbenchSource(write(tmp_path, table))
    assert source.target_names == ("gap", "metal")
    assert [entry.load().y.tolist() for entry in source] == [[[0.5 * k, float(k % 2 == 0)]] for k in range(6)]
    assert [entry.structure_id for entry in source] == ["0", "1", "2", "3", "4", "5"]


def test_chosen_targets_come_in_the_order_asked_for(tmp_path, table):
    source = MatbenchSource(write(tmp_path, table), ["metal", "gap"])
    assert next(iter(source)).load().y.tolist() == [[1.0, 0.0]]


def test_official_tasks_have_the_official_ids(tmp_path, table):
    table = {"index": list(range(12)), "columns": table["columns"], "data": table["data"] * 2}
    for task in ("mp_gap", "matbench_mp_gap"):
        ids = [entry.structure_id for entry in MatbenchSource(write(tmp_path, table), "gap", task=task)]
        assert (ids[0], ids[11]) == ("mb-mp-gap-01", "mb-mp-gap-12")


def test_a_missing_value_is_nan(tmp_path, table):
    table["data"][2][1] = None
    assert np.isnan(list(MatbenchSource(write(tmp_path, table)))[2].targets[0])


def test_a_bad_row_does_not_stop_the_others(tmp_path, table):
    table["data"][1] = table["data"][1][:2]
    table["data"][2][0] = "not a structure"
    entries = list(MatbenchSource(write(tmp_path, table)))
    with pytest.raises(InvalidStructureError, match="'1': its row has 2 entries for 3 columns"):
        entries[1].load()
    with pytest.raises(InvalidStructureError, match="'2': malformed structure dictionary"):
        entries[2].load()
    entries[3].load()


def test_the_fingerprint_changes_with_content_and_options(tmp_path, table):
    path = write(tmp_path, table)
    prints = [MatbenchSource(path).fingerprint(), MatbenchSource(path, "gap").fingerprint()]
    prints.append(MatbenchSource(path, "gap", task="gap").fingerprint())
    table["data"][0][1] = 7
    prints.append(MatbenchSource(write(tmp_path, table)).fingerprint())
    assert len(set(prints)) == 4


def test_an_absent_target_or_structure_column_is_named(tmp_path, table):
    path = write(tmp_path, table)
    with pytest.raises(ValueError, match=r"'energy' is not in .*; it has 'structure', 'gap', 'metal'"):
        list(MatbenchSource(path, "energy"))
    with pytest.raises(ValueError, match=r"no column 'composition'; it has 'structure', 'gap', 'metal'"):
        list(MatbenchSource(path, structure_column="composition"))


@pytest.mark.parametrize("key", ["index", "columns", "data"])
def test_another_layout_is_refused(tmp_path, table, key):
    del table[key]
    with pytest.raises(ValueError, match="expected Matbench's keys index, columns and data"):
        list(MatbenchSource(write(tmp_path, table)))


def test_a_task_on_compositions_is_refused(tmp_path):
    path = tmp_path / "steels.json"
    path.write_text(json.dumps({"index": [0], "columns": ["composition", "gap"], "data": [["NaCl", 1.0]]}))
    with pytest.raises(
        ValueError, match=r"no column 'structure'; it has 'composition', 'gap'. Matbench's tasks on comp"
    ):
        list(MatbenchSource(path))
