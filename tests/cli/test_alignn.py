"""ALIGNN from the command line: train, evaluate, predict, embed, export and info."""

import csv
import json

import numpy as np
import pytest
import yaml

OPTIONS = [f"--model-option={text}" for text in ("channels=8", "embedding_channels=4", "num_alignn_layers=1")]


@pytest.fixture
def alignn_run(run, cif_folder, tmp_path):
    folder = tmp_path / "run"
    flags = ["--epochs", "2", "--batch-size", "6", "--device", "cpu", *OPTIONS]
    result = run("train", "--data", cif_folder, "--model", "alignn", "--output", folder, *flags)
    assert result.code == 0, result.err
    return folder


def test_training_takes_the_published_recipe_and_the_run_is_usable(run, alignn_run, cif_folder, tmp_path):
    settings = yaml.safe_load((alignn_run / "config.yaml").read_text())
    recipe = settings["recipe"]
    assert (recipe["schedule"], recipe["standardize"], recipe["loss"]) == ("one-cycle", False, "mse")

    result = run("evaluate", "-c", alignn_run, "-d", cif_folder, "-o", tmp_path / "e", "--device", "cpu")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["targets"]

    result = run("predict", "-c", alignn_run, cif_folder, "-o", tmp_path / "p.csv", "--device", "cpu")
    assert result.code == 0, result.err
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"x{index:02d}" for index in range(12)]

    result = run("embed", "-c", alignn_run, "-d", cif_folder, "-o", tmp_path / "e.npz", "--device", "cpu")
    assert result.code == 0, result.err
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert arrays["embedding"].shape == (12, 8)
        expected = [float(row["prediction"]) for row in rows]
        assert arrays["prediction"][:, 0] == pytest.approx(expected, rel=1e-4)


def test_finished_run_is_resumed_with_its_settings(run, alignn_run):
    result = run("train", "--resume", "--output", alignn_run)
    assert result.code == 0, result.err


def test_one_recipe_for_all_models_can_be_chosen(run, cif_folder, tmp_path):
    flags = ["--preset", "common", "--epochs", "1", "--device", "cpu", *OPTIONS]
    result = run("train", "--data", cif_folder, "--model", "alignn", "--output", tmp_path / "run", *flags)
    assert result.code == 0, result.err
    recipe = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["recipe"]
    assert (recipe["schedule"], recipe["standardize"], recipe["loss"]) == ("inverse-sqrt", True, "l1")


def test_a_setting_that_is_a_switch_can_be_turned_on(run, cif_folder, tmp_path):
    flags = ["--standardize", "--epochs", "1", "--device", "cpu", *OPTIONS]
    result = run("train", "--data", cif_folder, "--model", "alignn", "--output", tmp_path / "run", *flags)
    assert result.code == 0, result.err
    recipe = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["recipe"]
    assert (recipe["schedule"], recipe["standardize"]) == ("one-cycle", True)


def test_info_lists_the_model(run):
    assert "alignn" in run("info").out


def test_merged_graphs_train_and_predict_as_whole_ones(run, cif_folder, tmp_path):
    flags = ["--epochs", "2", "--batch-size", "6", "--device", "cpu", "--precision", "64", *OPTIONS]
    predictions = []
    for name, graph in (("whole", []), ("merged", ["--graph-option", "merge_tolerance=1e-6"])):
        folder = tmp_path / name
        result = run("train", "--data", cif_folder, "--model", "alignn", "--output", folder, *flags, *graph)
        assert result.code == 0, result.err
        result = run("predict", "-c", folder, cif_folder, "-o", tmp_path / f"{name}.csv", "--device", "cpu")
        assert result.code == 0, result.err
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            predictions.append([float(row["prediction"]) for row in csv.DictReader(file)])
    assert predictions[1] == pytest.approx(predictions[0], rel=1e-4)
    settings = yaml.safe_load((tmp_path / "merged" / "config.yaml").read_text())
    assert settings["neighborhood"] == {"merge_tolerance": 1e-6}
