"""Ensembles on the command line: calibrate, and predict with several checkpoints."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from torch_geometric_crystal.benchmark.checkpoint import load_model, save_checkpoint


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def members(small_run, tmp_path_factory):
    """The small run's checkpoint and two of its neighbours."""
    folder = tmp_path_factory.mktemp("members")
    paths = [folder / f"{name}.ckpt" for name in "abc"]
    model = load_model(small_run)
    for path in paths:
        save_checkpoint(path, model.card, model.state_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return paths


def flags(members):
    return [part for path in members for part in ("-c", path)]


@pytest.fixture(scope="module")
def calibrated(members, cif_folder, tmp_path_factory):
    """Folder of a calibration on all of the twelve crystals."""
    import sys

    from torch_geometric_crystal.cli import main

    folder = tmp_path_factory.mktemp("calibrated")
    arguments = ["calibrate", *flags(members), "-d", cif_folder, "--split", "all", "-o", folder, "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tgcrystal", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder


def test_mean_and_spread_stand_in_the_table(run, members, cif_folder, tmp_path):
    result = run("predict", *flags(members), cif_folder, "-o", tmp_path / "p.csv", "--device", "cpu")
    assert result.code == 0, result.err
    assert "12 of 12 structures predicted by 3 models" in result.out
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0]) == ["id", "prediction", "spread", "truncation_bound", "error", "file"]
    each = []
    for path in members:
        run("predict", "-c", path, cif_folder, "-o", tmp_path / "one.csv", "--device", "cpu")
        each.append([float(row["prediction"]) for row in rows_of(tmp_path / "one.csv")])
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], np.mean(each, axis=0), rtol=1e-5)
    np.testing.assert_allclose([float(row["spread"]) for row in rows], np.std(each, axis=0, ddof=1), rtol=1e-3)
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["checkpoints"] == [str(path) for path in members]
    assert content["predictions"][3]["id"] == rows[3]["id"]


def test_a_file_that_cannot_be_used_has_its_error_in_its_row(run, members, cif_folder, tmp_path):
    (tmp_path / "bad.cif").write_text("nothing")
    files = [cif_folder / "x01.cif", tmp_path / "bad.cif", cif_folder / "x00.cif"]
    result = run("predict", *flags(members), *files, "-o", tmp_path / "p.csv", "--device", "cpu")
    assert result.code == 0
    assert "2 of 3 structures predicted" in result.out
    assert "1 failed, see the column error" in result.err
    rows = rows_of(tmp_path / "p.csv")
    assert [row["id"] for row in rows] == ["x01", "bad", "x00"]
    assert [bool(row["spread"]) for row in rows] == [True, False, True]
    assert [bool(row["error"]) for row in rows] == [False, True, False]


def test_calibration_writes_numbers_rows_and_a_picture(calibrated, cif_folder):
    content = json.loads((calibrated / "calibration.json").read_text())
    assert content["target_names"] == ["target"]
    assert content["count"] == [12]
    assert (content["calibrated_on"], content["checked_on"]) == ("all", "all")
    metrics = content["metrics"]["target"]
    assert set(metrics) == {"spread", "calibrated"}
    assert metrics["calibrated"]["nll"] < (metrics["spread"]["nll"] or np.inf)
    assert (calibrated / "calibration.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(calibrated / "calibration.csv")
    assert list(rows[0]) == ["id", "target", "prediction", "spread", "uncertainty"]
    scale, offset = content["scale"][0], content["offset"][0]
    for row in rows:
        assert float(row["uncertainty"]) == pytest.approx(scale * float(row["spread"]) + offset, rel=1e-6)


def test_predict_takes_the_calibration(run, members, calibrated, cif_folder, tmp_path):
    file = calibrated / "calibration.json"
    result = run("predict", *flags(members), "--calibration", file, cif_folder, "-o", tmp_path / "p.csv")
    assert result.code == 0, result.err
    expected = {row["id"]: float(row["uncertainty"]) for row in rows_of(calibrated / "calibration.csv")}
    for row in rows_of(tmp_path / "p.csv"):
        assert float(row["uncertainty"]) == pytest.approx(expected[row["id"]], rel=1e-4)


def test_the_table_shows_both_kinds_and_the_part_that_was_used(run, members, cif_folder, tmp_path):
    arguments = ["-d", cif_folder, "--split", "all", "-o", tmp_path, "--device", "cpu"]
    result = run("calibrate", *flags(members), *arguments)
    assert result.code == 0, result.err
    for text in ("target, all part, n = 12", "spread", "calibrated", "miscalibration area"):
        assert text in result.out
    assert "checked on the crystals of the calibration itself (all)" in result.err


def test_a_part_that_is_not_that_of_training_is_warned_of(run, members, cif_folder, tmp_path):
    arguments = ["calibrate", *flags(members), "-d", cif_folder, "-o", tmp_path, "--device", "cpu"]
    for seed, warned in (([], False), (["--seed", 1], True)):
        result = run(*arguments, *seed)
        assert result.code == 2
        assert ("no member may have been trained on it" in result.err) == warned
        assert "expected at least 10 known values to calibrate on, received 1" in result.err
    assert list(tmp_path.iterdir()) == []


def test_members_trained_on_other_splits_are_refused(run, members, cif_folder, tmp_path):
    model = load_model(members[0])
    assert model.card.split.items() >= {"seed": 0, "val_fraction": 0.1, "test_fraction": 0.1}.items()
    others = [members[1], tmp_path / "other.ckpt"]
    card = dataclasses.replace(model.card, split=model.card.split | {"val_fraction": 0.05})
    save_checkpoint(others[1], card, model.state_dict())
    result = run("calibrate", *flags(others), "-d", cif_folder, "-o", tmp_path / "c", "--device", "cpu")
    assert result.code == 2
    assert "expected models trained on one random split" in result.err
    assert run("calibrate", *flags(others), "-d", cif_folder, "--split", "all", "-o", tmp_path / "c").code == 0


def test_wrong_uses_are_one_line(run, members, calibrated, cif_folder, tmp_path):
    file = calibrated / "calibration.json"
    cases = {
        "--calibration: it belongs to an ensemble": ["predict", "-c", members[0], "--calibration", file, cif_folder],
        "--devices: an ensemble predicts on one device": ["predict", *flags(members), "--devices", 2, cif_folder],
        "it was made for other weights": ["predict", *flags(members[:2]), "--calibration", file, cif_folder],
        "not a calibration": ["predict", *flags(members), "--calibration", cif_folder / "id_prop.csv", cif_folder],
        "members: expected at least two models": ["calibrate", *flags(members[:1]), "-d", cif_folder],
        "have the same": ["predict", *flags([members[0], members[0]]), cif_folder],
        "no such file": ["predict", *flags([members[0], tmp_path / "no.ckpt"]), cif_folder],
    }
    for message, arguments in cases.items():
        result = run(*arguments, "-o", tmp_path / "x.csv")
        assert result.code == 2, message
        assert message in result.err
        assert result.err.count("\n") == 1


def test_members_of_other_units_are_named(run, members, cif_folder, tmp_path):
    model = load_model(members[0])
    card = dataclasses.replace(model.card, units=("meV",))
    save_checkpoint(tmp_path / "other.ckpt", card, model.state_dict())
    result = run("predict", "-c", members[0], "-c", tmp_path / "other.ckpt", cif_folder)
    assert result.code == 2
    assert "expected models of the same units" in result.err
    assert "other.ckpt has ('meV',)" in result.err


def test_parts_with_crystals_of_the_training_are_warned_of(run, members, cif_folder, tmp_path):
    result = run("calibrate", *flags(members), "-d", cif_folder, "--split", "all", "-o", tmp_path, "--device", "cpu")
    assert f"members were trained on a set called {cif_folder.name!r}: if on this all part" in result.err
