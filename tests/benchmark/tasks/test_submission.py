import dataclasses
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_geometric_crystal.benchmark.tasks import read_records, run_benchmark
from torch_geometric_crystal.benchmark.tasks.combination import combine_runs
from torch_geometric_crystal.benchmark.tasks.submission import AUTHORS, read_results, write_submission

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tiny_task, tiny_config, tmp_path):
    """Run the mean baseline on folds and write the submission; returns what is in it."""

    def make(folds):
        config = tiny_config("mean")
        run_benchmark([lambda: tiny_task], [config], tmp_path / "out", folds)
        command = "tgcrystal benchmark matbench --model mean"
        return write_submission(read_records(tmp_path / "out"), tmp_path / "out/mean", command)

    return make


def test_the_result_file_is_a_gzip_that_matbench_accepts(run, tmp_path):
    assert run([]) == ["matbench_phonons"]
    path = tmp_path / "out/mean/results.json.gz"
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    benchmark = read_results(path)
    assert benchmark.is_recorded
    assert benchmark.is_valid
    scores = [record.score for record in read_records(tmp_path / "out")]
    assert benchmark.scores.matbench_phonons.mae.mean == pytest.approx(sum(scores) / 5)


def test_matbench_refuses_a_file_that_was_changed(run, tmp_path):
    run([])
    path = tmp_path / "out/mean/results.json.gz"
    content = json.loads(gzip.decompress(path.read_bytes()))
    content["tasks"]["matbench_phonons"]["results"]["fold_0"]["scores"]["mae"] = 0.0
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(ValueError, match="Hash"):
        read_results(path)


def test_a_task_with_a_missing_fold_is_not_submitted(run, tmp_path):
    assert run([0, 1, 2, 3]) == []
    assert not (tmp_path / "out/mean/results.json.gz").exists()
    assert run([4]) == ["matbench_phonons"]


def test_the_same_results_are_not_written_again_and_others_are(run, tmp_path):
    run([])
    path = tmp_path / "out/mean/results.json.gz"
    before = path.read_bytes()
    run([])
    assert path.read_bytes() == before
    path.write_bytes(b"half a fi")
    run([])
    assert read_results(path).is_valid


def test_each_task_has_its_own_settings_in_the_source_file(run, tmp_path):
    run([])
    records = read_records(tmp_path / "out")
    other = {"settings": {"model": "mean", "seed": 7}}
    records += [dataclasses.replace(r, task="matbench_jdft2d", num_folds=6, parameters=other) for r in records]
    write_submission(records, tmp_path / "out/mean", "command")
    text = (tmp_path / "out/mean/run.py").read_text()
    assert "SETTINGS = {'matbench_phonons': [[{'model': 'mean', 'seed': 0}]]}" in text
    assert "matbench_jdft2d" not in text


def test_info_has_what_the_leaderboard_requires_and_keeps_the_authors_written_into_it(run, tmp_path):
    run([])
    path = tmp_path / "out/mean/info.json"
    info = json.loads(path.read_text())
    assert info.keys() == {"authors", "algorithm", "algorithm_long", "bibtex_refs", "notes", "requirements"}
    assert info["authors"] == AUTHORS
    assert any(text.startswith("matbench==") for text in info["requirements"]["python"])
    path.write_text(json.dumps(info | {"authors": "A. Person"}))
    run([])
    assert json.loads(path.read_text())["authors"] == "A. Person"


def test_other_data_than_matbenchs_make_no_submission(tiny_config, tmp_path):
    from torch_geometric_crystal.benchmark.tasks import load_task

    config = tiny_config("mean")
    records, _ = run_benchmark([lambda: load_task("elastic_2015")], [config], tmp_path)
    assert write_submission(records, tmp_path / "mean", "") == []


def test_records_of_two_models_are_not_mixed(run, tmp_path):
    run([0])
    (record,) = read_records(tmp_path / "out")
    with pytest.raises(ValueError, match="those of one model"):
        write_submission([record, dataclasses.replace(record, model="cgcnn")], tmp_path, "")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cgcnn", "two-cgcnn"])
@pytest.mark.parametrize("goes_on", [False, True])
def test_the_source_file_gives_the_same_results(tiny_task, tiny_config, tmp_path, model, goes_on):
    runs = [tmp_path / f"out_{seed}" for seed in range(2)]
    for seed, run in enumerate(runs):
        before = str(tmp_path / f"before_{seed}") if goes_on else ""
        if goes_on:
            run_benchmark([lambda: tiny_task], [tiny_config(seed=seed)], before)
        run_benchmark([lambda: tiny_task], [tiny_config(seed=seed, init_from=before, val_fraction=0.0)], run)
    combine_runs(runs, tmp_path / "out_0", "two-cgcnn", lambda name: tiny_task)
    records = [record for record in read_records(runs[0]) if record.model == model]
    entry = runs[0] / model
    write_submission(records, entry, "command")
    start = (
        "import runpy, sys, warnings, pathlib; warnings.simplefilter('ignore')\n"
        "from matbench.metadata import mbv01_metadata, mbv01_validation\n"
        "from tests.benchmark.tasks import tiny_matbench as tiny\n"
        "path = pathlib.Path(sys.argv[1]) / 'matbench_phonons.json.gz'\n"
        "mbv01_metadata[tiny.NAME], mbv01_validation.splits[tiny.NAME] = tiny.tables(path)\n"
        f"runpy.run_path({str(entry / 'run.py')!r}, run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", start, tmp_path / "data"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, again = (
        json.loads(gzip.decompress((entry / name).read_bytes()))["tasks"]
        for name in ("results.json.gz", "again/results.json.gz")
    )
    for tasks in (first, again) if goes_on else ():
        for fold in tasks["matbench_phonons"]["results"].values():
            for member in fold["parameters"].get("members", [fold["parameters"]]):
                assert [training["val_fraction"] for training in member["started_from"]] == [0.1]
                assert member["settings"].pop("init_from")  # a folder of the run
    assert first == again
