"""A benchmark that is killed in five phases and continued ends as one that was not."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from torch_geometric_crystal.benchmark.tasks import read_records

SCRIPT = Path(__file__).parent / "killed_runs.py"
ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("killed runs")]  # one fixture, so one worker
PHASES = ["graphs", "epoch", "prediction", "record", "results"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that was killed five times and continued, and one that was not."""
    folder = tmp_path_factory.mktemp("matbench")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def results(folder):
    content = json.loads(gzip.decompress((folder / "cgcnn/results.json.gz").read_bytes()))
    return {key: value for key, value in content.items() if key not in ("datestamp", "hash")}


def test_each_run_was_ended_by_kill_9_in_its_phase_and_the_last_one_finished(folder):
    ended = json.loads((folder / "phases.json").read_text())
    assert {phase: ended[phase] for phase in PHASES} == dict.fromkeys(PHASES, int(signal.SIGKILL))
    assert (ended["killed"], ended["whole"], ended["again"]) == (0, 0, 0)


def test_the_final_file_of_the_killed_run_equals_that_of_the_uninterrupted_one(folder):
    assert results(folder / "killed") == results(folder / "whole")
    folds = results(folder / "whole")["tasks"]["matbench_phonons"]["results"]
    assert [len(folds[f"fold_{k}"]["data"]) for k in range(5)] == [6] * 5


def test_records_are_the_same_but_for_the_time_taken(folder):
    killed, whole = read_records(folder / "killed"), read_records(folder / "whole")
    assert [r.predictions for r in killed] == [r.predictions for r in whole]
    assert [r.scores for r in killed] == [r.scores for r in whole]
    assert [r.fold for r in killed] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["killed", "whole"])
def test_no_epoch_was_trained_and_saved_twice_nor_left_out(folder, name):
    epochs = (folder / name / "epochs.txt").read_text().splitlines()
    assert epochs == [f"fold_{fold} {epoch}" for fold in range(5) for epoch in (1, 2, 3)]


def test_nothing_half_written_is_left(folder):
    assert [path for path in (folder / "killed").rglob("*.tmp") if "cache" not in path.parts] == []
