"""Several runs as one entry: the mean of their predictions, recorded by matbench."""

import dataclasses
import json

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.tasks import read_records, run_benchmark
from torch_geometric_crystal.benchmark.tasks.combination import combine_records, combine_runs
from torch_geometric_crystal.benchmark.tasks.submission import read_results, write_submission


@pytest.fixture
def run(tiny_task, tiny_config, tmp_path):
    """Run models of a seed on folds; returns the folder."""

    def make(seed, folds=(), model="mean", name=None):
        folder = tmp_path / (name or f"seed_{seed}")
        run_benchmark([lambda: tiny_task], [tiny_config(model, seed=seed)], folder, folds)
        return folder

    return make


def combine(runs, tiny_task, tmp_path, name="pair"):
    return combine_runs(runs, tmp_path / "out", name, lambda _: tiny_task)


def test_the_mean_of_the_members_is_recorded_for_each_fold(run, tiny_task, tmp_path):
    runs = [run(0, model="cgcnn"), run(1, model="mean")]
    combined = combine(runs, tiny_task, tmp_path)
    members = [read_records(folder) for folder in runs]
    assert [record.fold for record in combined] == [0, 1, 2, 3, 4]
    assert combined == read_records(tmp_path / "out")
    for record, first, second in zip(combined, *members, strict=True):
        values = [(first.predictions[name] + second.predictions[name]) / 2 for name in first.predictions]
        np.testing.assert_allclose(list(record.predictions.values()), values, rtol=1e-12)
        truth = tiny_task.values[list(tiny_task.fold(record.fold).test)]
        assert record.score == pytest.approx(np.abs(values - truth).mean())
        assert [member["settings"]["seed"] for member in record.parameters["members"]] == [0, 1]
        assert record.effort["weights"] == first.effort["weights"]  # the mean baseline has none


def test_matbench_accepts_the_file_of_an_ensemble(run, tiny_task, tmp_path):
    records = combine([run(0), run(1)], tiny_task, tmp_path)
    assert write_submission(records, tmp_path / "out/pair", "command") == ["matbench_phonons"]
    benchmark = read_results(tmp_path / "out/pair/results.json.gz")
    assert benchmark.scores.matbench_phonons.mae.mean == pytest.approx(np.mean([r.score for r in records]))
    info = json.loads((tmp_path / "out/pair/info.json").read_text())
    assert info["algorithm"] == "pair"
    assert "Dunn" in info["bibtex_refs"]


def test_a_member_without_a_fold_is_named(run, tiny_task, tmp_path):
    runs = [run(0, [0, 1]), run(1, [0])]
    with pytest.raises(
        ValueError, match=r"the folds \[0, 1\] of matbench_phonons, received 'mean in .*seed_1 without \[1\]"
    ):
        combine(runs, tiny_task, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (lambda run, _: [run(0, [0])], "at least two for matbench_phonons"),
        (lambda run, _: [run(0, [0]), run(0, [0], name="copy")], "the same twice"),
        (lambda _, path: [path / "nothing"], "folders with finished folds"),
    ],
    ids=["one member", "twice", "nothing"],
)
def test_what_makes_no_ensemble_is_refused(run, tiny_task, tmp_path, runs, message):
    with pytest.raises(ValueError, match=message):
        combine(runs(run, tmp_path), tiny_task, tmp_path)


def test_predictions_for_other_crystals_are_refused(run, tiny_task, tmp_path):
    members = [read_records(run(seed, [0]))[0] for seed in (0, 1)]
    other = dataclasses.replace(members[1], predictions=dict(reversed(members[1].predictions.items())))
    with pytest.raises(ValueError, match="fold 0 of matbench_phonons as it is now"):
        combine_records(tiny_task, [members[0], other], "pair")


def test_folds_of_other_settings_are_not_one_member(run, tiny_task, tmp_path):
    first, second = run(0, [0, 1]), run(1, [0, 1])
    path = second / "mean/matbench_phonons/fold_1/fold.json"
    record = json.loads(path.read_text())
    record["parameters"]["settings"]["seed"] = 7
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="one setting for all folds"):
        combine([first, second], tiny_task, tmp_path)


def test_a_name_that_is_no_folders_is_refused(run, tiny_task, tmp_path):
    with pytest.raises(ValueError, match="name: expected letters"):
        combine([run(0, [0]), run(1, [0])], tiny_task, tmp_path, name="a/b")


def test_what_was_trained_is_not_written_over(run, tiny_task, tmp_path):
    runs = [run(0), run(1)]
    before = read_records(runs[0])
    with pytest.raises(ValueError, match=r"name: expected one that no run in .*seed_0 has, received 'mean'"):
        combine_runs(runs, runs[0], "mean", lambda _: tiny_task)
    assert read_records(runs[0]) == before
    for _ in range(2):  # a combination may be made anew
        combine_runs(runs, runs[0], "both", lambda _: tiny_task)
    assert [record.model for record in read_records(runs[0])] == ["both"] * 5 + ["mean"] * 5
