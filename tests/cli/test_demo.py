import csv

import pytest

from tests.benchmark.tasks import tiny_matbench
from torch_geometric_crystal.benchmark.tasks import load_task
from torch_geometric_crystal.cli import demo

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matbench|matminer|monty|sklearn")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    """The official task in small, and small models."""
    folder = tmp_path / "data"
    folder.mkdir()
    tiny_matbench.pretend_official(monkeypatch, folder)
    monkeypatch.setenv("MATMINER_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    short = {"epochs": 1, "batch_size": 6, "averaging_epochs": 1}
    monkeypatch.setattr(demo, "RECIPES", {"crystalformer": short, "cgcnn": {"preset": "common"} | short})


def test_demo_shows_models_mean_predictor_leaderboard_and_how_short_it_was(run, tmp_path):
    result = run("demo", "--output", tmp_path / "demo", "--minutes", "1")
    assert result.code == 0, result.err
    for text in (
        "crystalformer, here",
        "cgcnn, here",
        "mean, here",
        "MegNet (kgcnn v2.1.0)",
        "CGCNN v2019",
    ):
        assert text in result.out
    assert "fold 0 of 5, 1 epoch, 0.0 min" in result.out
    assert "a short training, or one fold, says that things work" in result.out
    assert "Try next:" in result.out
    for model in ("crystalformer", "cgcnn"):
        assert (tmp_path / "demo" / model / "parity.png").exists()


def test_demo_predicts_cif_files_that_were_not_trained_on(run, tmp_path):
    run("demo", "--output", tmp_path / "demo", "--minutes", "1")
    with (tmp_path / "demo" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == demo.NUM_EXAMPLES
    assert all(row["prediction"] and float(row["truncation_bound"]) < 1e-2 and not row["error"] for row in rows)
    task = load_task("matbench_phonons")
    tested = [task.ids[k] for k in task.fold(0).test]
    assert [row["id"] for row in rows] == tested[: demo.NUM_EXAMPLES]


def test_demo_can_be_run_again_in_the_same_folder(run, tmp_path):
    for _ in range(2):
        assert run("demo", "--output", tmp_path / "demo", "--minutes", "0.01").code == 0
