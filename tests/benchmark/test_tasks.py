import json
import os
import shutil

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.benchmark.tasks import fold_crystals, inner_split, leaderboard, load_task, run_fold
from torch_geometric_crystal.datasets.bundled import FILES
from torch_geometric_crystal.transforms import PeriodicRadiusGraph

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matbench|matminer|monty|sklearn")


@pytest.fixture(scope="module")
def phonons():
    return load_task("matbench_phonons")


@pytest.fixture
def small_task(phonons, monkeypatch):
    """The official task with a fold of twelve crystals to train on and four to test on."""
    import copy

    task = copy.copy(phonons)
    task.results = type(phonons.results)({})
    fold = phonons.validation["fold_0"]
    small = type(fold)({"train": list(fold.train[:12]), "test": list(fold.test[:4])})
    task.validation = type(phonons.validation)({"fold_0": small})
    task.folds_keys, task.folds_nums, task.folds, task.folds_map = ["fold_0"], [0], [0], {0: "fold_0"}
    return task


def test_bundled_task_is_the_official_one_with_the_official_folds(phonons):
    assert len(phonons.df) == 1265
    sizes = [(len(phonons.validation[key].train), len(phonons.validation[key].test)) for key in phonons.folds_keys]
    assert sizes == [(1012, 253)] * 5
    tests = [name for key in phonons.folds_keys for name in phonons.validation[key].test]
    assert len(set(tests)) == 1265


def test_bundled_split_agrees_with_the_official_fold(phonons):
    from torch_geometric_crystal.datasets import MatbenchPhonons

    dataset = MatbenchPhonons()
    for fold, parts in enumerate(dataset.folds):
        ids = [dataset.structure_ids[index] for index in parts["test"]]
        assert sorted(ids) == sorted(phonons.validation[f"fold_{fold}"].test)


def test_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("MATMINER_DATA", "/nowhere")
    load_task("matbench_phonons")
    assert os.environ["MATMINER_DATA"] == "/nowhere"
    monkeypatch.delenv("MATMINER_DATA")
    load_task("matbench_phonons")
    assert "MATMINER_DATA" not in os.environ


def test_altered_file_is_refused(tmp_path):
    path = tmp_path / "matbench_phonons.json.gz"
    shutil.copy(FILES / path.name, path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is not the official file of matbench_phonons"):
        load_task("matbench_phonons", tmp_path)


def test_absent_file_is_not_downloaded_but_named_with_its_address(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"matbench_jdft2d.json.gz is not there: get it from https://"):
        load_task("matbench_jdft2d", tmp_path)


def test_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"task: expected one of .*matbench_phonons"):
        load_task("matbench_photons")


def test_inner_split_is_a_seeded_tenth():
    train, validation = inner_split(1012, seed=0)
    assert sorted(train + validation) == list(range(1012))
    assert len(validation) == 101
    assert validation == sorted(np.random.default_rng(0).permutation(1012)[:101].tolist())
    assert inner_split(1012, seed=1)[1] != validation


def test_test_part_of_a_fold_has_no_targets_and_is_disjoint(small_task):
    crystals = fold_crystals(small_task, 0, PeriodicRadiusGraph(cutoff=3.0))
    parts = crystals.parts
    assert [len(parts[name]) for name in ("train", "val", "test")] == [11, 1, 4]
    assert all(crystal.get("y") is None for crystal in parts["test"])
    names = [crystal.structure_id for part in parts.values() for crystal in part]
    assert len(set(names)) == 16
    assert (crystals.target_names, crystals.units) == (("last phdos peak",), ("1/cm",))
    one = parts["train"][0]
    assert one.y.item() == pytest.approx(small_task.df.loc[one.structure_id, "last phdos peak"])


def test_fold_must_exist(small_task):
    with pytest.raises(ValueError, match="fold: expected 0 to 0, received 7"):
        fold_crystals(small_task, 7, None)


def test_fold_is_trained_predicted_recorded_and_scored(small_task, tmp_path):
    config = RunConfig(
        model="cgcnn",
        model_options={"channels": 8},
        device="cpu",
        recipe=Recipe(epochs=2, batch_size=6, averaging_epochs=1),
    )
    result = run_fold(small_task, 0, config, tmp_path)
    assert small_task.is_recorded[0]
    truth = small_task.df.loc[result.test_ids, "last phdos peak"].to_numpy()
    recorded = np.array([small_task.results.fold_0.data[name] for name in result.test_ids])
    assert result.scores["mae"] == pytest.approx(np.abs(recorded - truth).mean())
    assert result.run.metrics["test"]["averaged"]["targets"]["last phdos peak"]["mae"] == pytest.approx(
        result.scores["mae"], rel=1e-5
    )
    train = small_task.df.loc[list(small_task.validation.fold_0.train), "last phdos peak"].to_numpy()
    assert result.mean_predictor_mae == pytest.approx(np.abs(train.mean() - truth).mean(), rel=1e-5)
    record = json.loads((tmp_path / "matbench_fold.json").read_text())
    assert record["fold_0"]["data"].keys() == set(result.test_ids)
    assert record["fold_0"]["parameters"]["epochs"] == 2
    assert json.loads((tmp_path / "metrics.json").read_text())["crystals"] == {"train": 11, "val": 1, "test": 4}


def test_leaderboard_is_sorted_best_first():
    entries = leaderboard("matbench_phonons")
    assert (entries[0].algorithm, entries[0].mean) == ("MegNet (kgcnn v2.1.0)", 28.7606)
    assert entries[-1].algorithm == "Dummy"
    assert [e.mean for e in entries] == sorted(e.mean for e in entries)
    assert leaderboard("matbench_mp_is_metal")[0].algorithm == "CGCNN v2019"
    assert leaderboard("matbench_steels") == []
