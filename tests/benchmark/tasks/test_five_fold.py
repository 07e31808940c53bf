import numpy as np
import pytest
from sklearn.model_selection import KFold

from torch_geometric_crystal.benchmark.tasks import load_task
from torch_geometric_crystal.benchmark.tasks.matbench_package import official_folds, task_metadata
from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.datasets import write_compact_store
from torch_geometric_crystal.datasets.matbench_phonons import k_folds


def write_store(path, values, names):
    crystals = [make_crystal([11], [[0, 0, 0]], (3 + k / 10) * np.eye(3), [True] * 3, y) for k, y in enumerate(values)]
    write_compact_store(path, crystals, names)


def test_folds_are_those_that_scikit_learn_cuts():
    cut = KFold(5, shuffle=True, random_state=18012019).split(np.zeros(3938))
    task = load_task("flla_2015")
    assert [(list(s.train), list(s.test)) for s in task.splits] == [(a.tolist(), b.tolist()) for a, b in cut]


@pytest.mark.parametrize("name", ["matbench_jdft2d", "matbench_mp_gap"])
def test_the_protocol_gives_the_official_folds_of_official_tasks(name):
    number = task_metadata()[name].n_samples
    for ours, official in zip(k_folds(number), official_folds(name), strict=True):
        assert ours["test"] == sorted(int(text.rpartition("-")[2]) - 1 for text in official["test"])


def test_a_bundled_set_says_that_it_is_no_matbench_task():
    task = load_task("flla_2015")
    assert (task.name, task.official, task.published_as) == ("flla_2015:formation_energy_per_atom", False, "")
    assert task.statement.startswith(
        "not a Matbench task: the five-fold protocol of Matbench on the bundled set flla_2015"
    )
    assert "KFold(5, shuffle=True, random_state=18012019)" in task.statement


def test_another_target_is_chosen_after_a_colon():
    task = load_task("elastic_2015:log10(G_VRH)")
    assert (task.target, task.unit, len(task.ids)) == ("log10(G_VRH)", "log10(GPa)", 1181)
    with pytest.raises(ValueError, match=r"'colour' is not in elastic_2015; it has 'log10\(K_VRH\)'"):
        load_task("elastic_2015:colour")


def test_a_compact_store_is_read_from_the_folder_and_crystals_without_the_target_are_left_out(tmp_path):
    values = [[float(k), np.nan if k % 2 else float(-k)] for k in range(20)]
    write_store(tmp_path / "matbench_mine.npz", values, ["gap", "other"])
    assert load_task("mine", tmp_path).values.tolist() == [row[0] for row in values]
    assert load_task("mine", tmp_path).unit == ""
    (tmp_path / "matbench_mine.npz").rename(tmp_path / "matbench_mp_gap.npz")
    assert load_task("mp_gap", tmp_path).unit == "eV"
    (tmp_path / "matbench_mp_gap.npz").rename(tmp_path / "matbench_mine.npz")
    task = load_task("mine:other", tmp_path)
    assert task.ids == tuple(str(k) for k in range(0, 20, 2))
    assert task.positions == tuple(range(0, 20, 2))
    assert "the 10 of 20 crystals that have it" in task.statement
    assert [entry.structure_id for entry in task.entries()] == list(task.ids)


def test_too_few_crystals_for_five_folds_are_refused(tmp_path):
    write_store(tmp_path / "few.npz", [[1.0], [2.0]], ["gap"])
    with pytest.raises(ValueError, match="at least 5 crystals with gap, received 2"):
        load_task("few", tmp_path)
