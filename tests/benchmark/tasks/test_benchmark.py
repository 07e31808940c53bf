import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
import torch

from torch_geometric_crystal.benchmark import training
from torch_geometric_crystal.benchmark.checkpoint import load_model, read_checkpoint, save_checkpoint
from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.benchmark.tasks import job, load_task, run_benchmark
from torch_geometric_crystal.benchmark.tasks.folder_settings import keep_settings
from torch_geometric_crystal.benchmark.tasks.record import read_record
from torch_geometric_crystal.benchmark.tasks.task import folder_name
from torch_geometric_crystal.datasets import LockWarning

ROOT = Path(__file__).parents[3]


def test_each_model_task_and_fold_has_its_folder(tiny_task, tiny_config, tmp_path):
    configs = [tiny_config(), tiny_config("mean")]
    records, complete = run_benchmark([lambda: tiny_task], configs, tmp_path / "out", folds=[1, 0, 1])
    assert complete
    assert [(record.model, record.fold) for record in records] == [("cgcnn", 1), ("cgcnn", 0), ("mean", 1), ("mean", 0)]
    for model in ("cgcnn", "mean"):
        for number in (0, 1):
            found = tmp_path / f"out/{model}/matbench_phonons/fold_{number}"
            assert {"fold.json", "predictions.csv", "parity.png"} <= {path.name for path in found.iterdir()}


def test_what_is_recorded_is_not_run_again(tiny_task, tiny_config, tmp_path, monkeypatch):
    first, _ = run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])
    monkeypatch.setattr(job, "run_fold", None)
    assert run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0]) == (first, True)


def test_an_interrupted_fold_ends_the_run_and_is_continued(tiny_task, tiny_config, tmp_path, monkeypatch):
    original = training._Fit._step

    def interrupt(self, batch):
        if self.progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(training._Fit, "_step", interrupt)
    assert run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0, 1]) == ([], False)
    monkeypatch.setattr(training._Fit, "_step", original)
    records, complete = run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])
    whole, _ = run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "whole", folds=[0])
    assert complete
    assert records[0].predictions == whole[0].predictions


def test_each_fold_starts_from_the_same_fold_of_an_earlier_benchmark(tiny_task, tiny_config, tmp_path):
    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "first", folds=[0, 1])
    still = Recipe(epochs=1, batch_size=6, averaging_epochs=0, lr=1e-9, optimizer="sgd")
    # Neither the architecture nor the graph is given again: they are the checkpoint's.
    config = tiny_config(model_options={}, recipe=still, init_from=str(tmp_path / "first"), val_fraction=0.0)
    records, _ = run_benchmark([lambda: tiny_task], [config], tmp_path / "second", folds=[0, 1])
    for record in records:
        fold = f"cgcnn/matbench_phonons/fold_{record.fold}"
        earlier = dict(load_model(tmp_path / "first" / fold).named_parameters())
        later = dict(load_model(tmp_path / "second" / fold).named_parameters())
        assert all(torch.allclose(later[name], value, atol=1e-6) for name, value in earlier.items())
        assert record.parameters["settings"]["init_from"] == str(tmp_path / "first")
        (before,) = record.parameters["started_from"]
        assert (before["val_fraction"], before["model_options"]) == (0.1, {"channels": 8})
    expected = "init_from: expected a checkpoint, or .* a trained fold 2 of matbench_phonons by cgcnn"
    with pytest.raises(ValueError, match=expected):
        run_benchmark([lambda: tiny_task], [config], tmp_path / "second", folds=[2])
    for name in ("", "best.ckpt"):
        one = tiny_config(init_from=str(tmp_path / "first/cgcnn/matbench_phonons/fold_0" / name))
        with pytest.raises(ValueError, match="weights that have not seen the test part of fold 1 of matbench_phonons"):
            run_benchmark([lambda: tiny_task], [one], tmp_path / "third", folds=[1])


def test_weights_that_have_seen_the_test_part_are_no_start(tiny_task, tiny_config, tmp_path):
    def start(weights, fold, output):
        return run_benchmark([lambda: tiny_task], [tiny_config(init_from=str(weights))], tmp_path / output, [fold])

    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "first", folds=[0, 1])
    fold = tmp_path / "first/cgcnn/matbench_phonons/fold_1"
    copied = shutil.copy(fold / "last.ckpt", tmp_path / "copied.ckpt")
    content = read_checkpoint(copied)
    of_data = dataclasses.replace(
        content["card"], trainings=({"data": "phonons.json.gz", "fold": None, "settings": {}},)
    )
    save_checkpoint(tmp_path / "of_data.ckpt", of_data, content["state_dict"])
    other = [lambda: load_task("elastic_2015")], [tiny_config(init_from=str(fold), max_time=1e-9)]
    run_benchmark(*other, tmp_path / "chain", folds=[0])
    cases = {
        fold: "trained on fold 1",
        copied: "trained on fold 1",
        tmp_path / "of_data.ckpt": "trained on phonons.json.gz",
        tmp_path / "chain/cgcnn/elastic_2015-log10-K_VRH/fold_0": "trained on fold 1",
    }
    for weights, message in cases.items():
        expected = f"init_from: expected weights that have not seen the test part of fold 0 .*{message}"
        with pytest.raises(ValueError, match=expected):
            start(weights, 0, "second")
    assert start(copied, 1, "second")[1]
    for name in ("last.ckpt", "best.ckpt"):
        content = read_checkpoint(fold / name)
        card = dataclasses.replace(content["card"], trainings=())
        save_checkpoint(fold / name, card, content["state_dict"], content["averaged_state_dict"], content["training"])
    with pytest.raises(ValueError, match="of an earlier version, which does not say: train it anew"):
        start(fold, 0, "fourth")
    (fold / "fold.json").unlink()
    with pytest.raises(ValueError, match="with a trained fold 1 of matbench_phonons by cgcnn"):
        start(tmp_path / "first", 1, "third")


def test_all_folds_may_start_from_one_checkpoint_of_other_data(tiny_task, tiny_config, tmp_path):
    run_benchmark([lambda: load_task("elastic_2015")], [tiny_config(max_time=1e-9)], tmp_path / "first", folds=[0])
    start = tmp_path / "first/cgcnn/elastic_2015-log10-K_VRH/fold_0"
    config = tiny_config(init_from=str(start))
    (record,), _ = run_benchmark([lambda: tiny_task], [config], tmp_path / "second", folds=[1])
    assert record.parameters["settings"]["init_from"] == str(start)
    assert "started_from" not in record.parameters  # run.py repeats trainings on the task alone
    fold = tmp_path / "second/cgcnn/matbench_phonons/fold_1"
    trainings = load_model(fold).card.trainings
    assert [(t["data"], t["fold"]) for t in trainings] == [("elastic_2015:log10(K_VRH)", 0), ("matbench_phonons", 1)]
    assert json.loads((fold / "metrics.json").read_text())["init_from"]
    shutil.rmtree(start)  # not needed any more
    again, complete = run_benchmark([lambda: tiny_task], [config], tmp_path / "second", folds=[1])
    assert (again, complete) == ([record], True)


def test_an_interrupted_fold_knows_what_it_started_from(tiny_task, tiny_config, tmp_path, monkeypatch):
    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "first", folds=[0])
    config = tiny_config(init_from=str(tmp_path / "first"))
    whole, _ = run_benchmark([lambda: tiny_task], [config], tmp_path / "whole", folds=[0])
    finish = training._Fit._finish_epoch

    def interrupt(self, clock):
        finish(self, clock)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(training._Fit, "_finish_epoch", interrupt)
        assert not run_benchmark([lambda: tiny_task], [config], tmp_path / "out", folds=[0])[1]
    shutil.rmtree(tmp_path / "first")
    (record,), complete = run_benchmark([lambda: tiny_task], [config], tmp_path / "out", folds=[0])
    assert complete
    assert record.parameters == whole[0].parameters
    assert len(record.parameters["started_from"]) == 1
    assert record.predictions == whole[0].predictions


def test_a_baseline_beside_a_model_that_goes_on_starts_from_nothing(tiny_task, tiny_config, tmp_path):
    run_benchmark([lambda: tiny_task], [tiny_config(), tiny_config("mean")], tmp_path / "first", folds=[0])
    configs = [tiny_config(name, init_from=str(tmp_path / "first")) for name in ("cgcnn", "mean")]
    records, _ = run_benchmark([lambda: tiny_task], configs, tmp_path / "second", folds=[0])
    assert ["started_from" in record.parameters for record in records] == [True, False]


def test_runs_with_other_settings_are_not_mixed(tiny_task, tiny_config, tmp_path):
    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])
    other = tiny_config(recipe=Recipe(epochs=3, batch_size=6, averaging_epochs=1), seed=1)
    with pytest.raises(ValueError, match=r"with other settings \(recipe.epochs was 2, is 3; seed was 0, is 1\)"):
        run_benchmark([lambda: tiny_task], [other], tmp_path / "out", folds=[1])


def test_a_run_that_began_while_others_trained_is_not_mixed_with_this_one(tiny_task, tiny_config, tmp_path):
    run_benchmark([lambda: tiny_task], [tiny_config("mean")], tmp_path / "out", folds=[0])
    folder = tmp_path / "out/mean/matbench_phonons"
    late = job.FoldJob(lambda: tiny_task, 0, tiny_config("mean", seed=7), folder / "fold_0", None)
    with pytest.raises(ValueError, match=r"with other settings \(seed was 0, is 7\)"):
        job.run_job(late, tiny_task)


def test_settings_that_an_earlier_version_did_not_know_had_their_default(tiny_task, tiny_config, tmp_path):
    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])
    path = tmp_path / "out/cgcnn/matbench_phonons/settings.yaml"
    path.write_text(re.sub(r"val_fraction.*\n", "", path.read_text()))
    assert run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])[1]
    with pytest.raises(ValueError, match=r"\(val_fraction was 0.1, is 0.2\)"):
        run_benchmark([lambda: tiny_task], [tiny_config(val_fraction=0.2)], tmp_path / "out", folds=[0])


def test_settings_of_a_fold_that_trains_its_first_epoch_are_kept(tiny_task, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "run_fold", lambda *arguments, **settings: None)
    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])
    with (
        filelock.FileLock(tmp_path / "out/cgcnn/matbench_phonons/fold_0/.lock"),
        pytest.raises(ValueError, match=r"with other settings \(seed was 0, is 1\)"),
    ):
        run_benchmark([lambda: tiny_task], [tiny_config(seed=1)], tmp_path / "out", folds=[1])


def test_two_runs_in_one_folder_are_refused(tiny_task, tiny_config, tmp_path):
    configs = [tiny_config("mean", seed=seed) for seed in (0, 1)]
    with pytest.raises(
        ValueError, match=r"task, model: .*not two in .*mean/matbench_phonons: give each another output"
    ):
        run_benchmark([lambda: tiny_task], configs, tmp_path / "out")


def test_settings_of_a_run_that_never_began_are_replaced(tiny_task, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "run_fold", lambda *arguments, **settings: None)
    run_benchmark([lambda: tiny_task], [tiny_config()], tmp_path / "out", folds=[0])
    run_benchmark([lambda: tiny_task], [tiny_config(seed=1)], tmp_path / "out", folds=[0])
    assert "seed: 1" in (tmp_path / "out/cgcnn/matbench_phonons/settings.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "cgnn"}, "model: expected one of .*'cgcnn'.*'mean', 'composition', received 'cgnn'"),
        ({"model_options": {"chanels": 8}}, "model_options of cgcnn"),
        ({"neighborhood": {"tol": 0.1}}, "neighborhood of cgcnn"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tiny_task, tiny_config, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run_benchmark([lambda: tiny_task], [tiny_config(**settings)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fold_that_another_process_runs_is_left_to_it(tiny_task, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "LOCK_SECONDS", 0.1)
    folder = tmp_path / "out/mean/matbench_phonons/fold_0"
    folder.mkdir(parents=True)
    with (
        filelock.FileLock(folder / ".lock"),
        pytest.raises(ValueError, match=r"another process is at work in .*fold_0"),
    ):
        run_benchmark([lambda: tiny_task], [tiny_config("mean")], tmp_path / "out", folds=[0])


@pytest.mark.usefixtures("no_locks")
def test_where_files_cannot_be_locked_a_fold_runs_all_the_same(tiny_task, tiny_config, tmp_path):
    with pytest.warns(LockWarning, match="fold_0 cannot be locked"):
        _, complete = run_benchmark([lambda: tiny_task], [tiny_config("mean")], tmp_path / "out", folds=[0])
    assert complete


def test_a_process_takes_the_device_that_it_was_dealt_unless_one_is_configured(
    tiny_task, tiny_config, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(job, "run_fold", lambda task, number, config, *rest, **settings: seen.append(config.device))
    for configured in ("auto", "cpu"):
        config = tiny_config(device=configured)
        keep_settings(tiny_task, config, tmp_path)
        one = job.FoldJob(lambda: tiny_task, 0, config, tmp_path / "fold", None)
        job.run_job(one, tiny_task, "cuda:1")
    assert seen == ["cuda:1", "cpu"]


def test_names_of_tasks_become_folders():
    assert folder_name("elastic_2015:log10(G_VRH)") == "elastic_2015-log10-G_VRH"
    assert folder_name("transport:\N{GREEK SMALL LETTER KAPPA}") == "transport-\N{GREEK SMALL LETTER KAPPA}"


@pytest.mark.slow
def test_folds_in_processes_give_what_one_process_gives(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loader = functools.partial(load_task, "elastic_2015")
    records, complete = run_benchmark([loader], [tiny_config("mean")], tmp_path / "two", folds=[0, 1], jobs=2)
    alone, _ = run_benchmark([loader], [tiny_config("mean")], tmp_path / "one", folds=[0, 1])
    assert complete
    assert [r.predictions for r in records] == [r.predictions for r in alone]


SLOW_FOLDS = """
import functools, sys
from torch_geometric_crystal.benchmark import RunConfig, Recipe
from torch_geometric_crystal.benchmark.tasks import load_task, run_benchmark
if __name__ == "__main__":
    config = RunConfig(model="cgcnn", model_options={"channels": 4}, device="cpu", recipe=Recipe(epochs=1000000))
    run_benchmark([functools.partial(load_task, "elastic_2015")], [config], sys.argv[1], folds=[0], jobs=2)
"""


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SLOW_FOLDS)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    child = subprocess.Popen([sys.executable, script, tmp_path / "out"], env=environment, stderr=subprocess.DEVNULL)
    folder = tmp_path / "out/cgcnn/elastic_2015-log10-K_VRH/fold_0"
    try:
        for _ in range(1200):
            if (folder / "last.ckpt").exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        assert (folder / "last.ckpt").exists()
        with pytest.raises(filelock.Timeout), filelock.FileLock(folder / ".lock", timeout=0.1):
            pass
    finally:
        child.kill()
        child.wait()
    with filelock.FileLock(folder / ".lock", timeout=20):
        assert read_record(folder) is None
