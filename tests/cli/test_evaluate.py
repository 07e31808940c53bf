import csv
import json
import shutil

import pytest


def test_errors_of_a_part_are_written(run, small_run, cif_folder, tmp_path):
    result = run(
        "evaluate", "-c", small_run, "-d", cif_folder, "--split", "all", "-o", tmp_path / "e", "--device", "cpu"
    )
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    with (tmp_path / "e" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    mae = sum(abs(float(row["target"]) - float(row["prediction"])) for row in rows) / 12
    (errors,) = metrics["targets"].values()
    assert errors["mae"] == pytest.approx(mae, rel=1e-6)
    assert (tmp_path / "e" / "parity.png").exists()


def test_test_part_is_that_of_the_training(run, small_run, cif_folder, tmp_path):
    run("evaluate", "-c", small_run, "-d", cif_folder, "-o", tmp_path / "e", "--device", "cpu")
    assert (tmp_path / "e" / "predictions.csv").read_text() == (small_run / "predictions.csv").read_text()


def test_certified_bound_is_shown_for_crystalformer(run, cif_folder, tmp_path):
    options = [f"--model-option={text}" for text in ("channels=8", "num_blocks=1", "num_heads=2", "num_basis=4")]
    flags = ["--epochs", "1", "--tol", "0.01", "--device", "cpu", "--output", tmp_path / "run"]
    result = run("train", "--data", cif_folder, *options, *flags)
    assert result.code == 0, result.err
    result = run("evaluate", "-c", tmp_path / "run", "-d", cif_folder, "-o", tmp_path / "e", "--device", "cpu")
    assert "certified truncation bound: at most" in result.out
    bound = json.loads((tmp_path / "e" / "metrics.json").read_text())["truncation"]
    assert 0 < bound["median"] <= bound["max"] < 0.01
    assert (bound["tolerance"], bound["above"]) == (0.01, 0)


def test_bound_above_the_tolerance_is_a_warning(capsys):
    from torch_geometric_crystal.cli.display import show_truncation

    show_truncation({"max": 0.1, "median": 0.001, "tolerance": 0.01, "above": 3}, 12)
    captured = capsys.readouterr()
    assert "at most 1.00e-01 of any softmax row" in captured.out
    assert "warning: the bound is above the graphs' tolerance 0.01 for 3 of 12 crystals" in captured.err


def test_test_part_is_that_of_a_training_with_other_shares(run, cif_folder, tmp_path):
    shares = ["--val-fraction", 0.0, "--test-fraction", 0.4, "--seed", 3]
    result = run(
        "train", "-d", cif_folder, "-m", "cgcnn", "--epochs", 1, "--device", "cpu", "-o", tmp_path / "r", *shares
    )
    assert result.code == 0, result.err
    result = run("evaluate", "-c", tmp_path / "r", "-d", cif_folder, "-o", tmp_path / "e", "--device", "cpu")
    assert result.code == 0, result.err
    assert (tmp_path / "e" / "predictions.csv").read_text() == (tmp_path / "r" / "predictions.csv").read_text()
    assert len((tmp_path / "e" / "predictions.csv").read_text().splitlines()) == 1 + 5
    asked = ["--seed", 0, "--val-fraction", 0.1, "--test-fraction", 0.1]
    assert run("evaluate", "-c", tmp_path / "r", "-d", cif_folder, "-o", tmp_path / "o", *asked).code == 0
    assert len((tmp_path / "o" / "predictions.csv").read_text().splitlines()) == 1 + 1


def test_all_of_a_single_crystal_is_evaluated(run, small_run, cif_folder, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(cif_folder / "x00.cif", tmp_path / "one" / "x00.cif")
    (tmp_path / "one" / "id_prop.csv").write_text("x00,1.0")
    arguments = ["-c", small_run, "-d", tmp_path / "one", "-o", tmp_path / "e", "--device", "cpu"]
    result = run("evaluate", *arguments, "--split", "all")
    assert result.code == 0, result.err
    assert len((tmp_path / "e" / "predictions.csv").read_text().splitlines()) == 2


def test_a_folder_has_the_weights_that_its_run_reports(run, cif_folder, tmp_path):
    shares = ["--val-fraction", 0.3, "--test-fraction", 0.3, "--lr", 0.5, "--device", "cpu", "--averaging-epochs", 0]
    arguments = ["-m", "cgcnn", "--epochs", 6, "--model-option", "channels=8", *shares, "-o", tmp_path / "r"]
    assert run("train", "-d", cif_folder, *arguments).code == 0
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["reported_weights"] == "best"
    assert metrics["test"]["best"] != metrics["test"]["last"]
    for weights, reported in (("auto", "best"), ("last", "last")):
        result = run("evaluate", "-c", tmp_path / "r", "-d", cif_folder, "-o", tmp_path / "e", "--weights", weights)
        assert result.code == 0, result.err
        found = json.loads((tmp_path / "e" / "metrics.json").read_text())["targets"]["target"]["mae"]
        assert found == pytest.approx(metrics["test"][reported]["targets"]["target"]["mae"], rel=1e-5)


def test_a_part_of_other_crystals_than_those_of_the_training_is_refused(run, small_run, cif_folder, tmp_path):
    grown = shutil.copytree(cif_folder, tmp_path / "grown")
    shutil.copy(grown / "x00.cif", grown / "x12.cif")
    with (grown / "id_prop.csv").open("a") as file:
        file.write("\nx12,5.0")
    arguments = ["evaluate", "-c", small_run, "-d", grown, "-o", tmp_path / "e", "--device", "cpu"]
    for part in ("test", "val", "train"):
        result = run(*arguments, "--split", part)
        assert result.code == 2
        assert f"received others: their {part} part may hold some that the model was trained on" in result.err
    assert not (tmp_path / "e").exists()
    other_data = shutil.copytree(cif_folder, tmp_path / "other_data")
    text = (other_data / "id_prop.csv").read_text()
    (other_data / "id_prop.csv").write_text(text.replace("x05,", "x05,1"))
    result = run("evaluate", "-c", small_run, "-d", other_data, "-o", tmp_path / "e", "--device", "cpu")
    assert "split: expected the crystals that the training drew its parts from" in result.err
    asked = ["--seed", 0, "--val-fraction", 0.1, "--test-fraction", 0.1]
    for other in (["--split", "all"], asked):
        assert run(*arguments, *other).code == 0


@pytest.mark.parametrize(
    "command", [["evaluate", "-d", "flla_2015"], ["embed", "-d", "flla_2015"], ["export", "m.pt2"]]
)
def test_a_second_checkpoint_is_refused_where_there_are_no_ensembles(run, small_run, command):
    result = run(*command, "-c", small_run, "-c", small_run)
    assert result.code == 2
    assert "--checkpoint: expected one; tgcrystal predict and calibrate take several" in result.err
