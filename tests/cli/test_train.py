import json
import os
import shutil
import signal

import pytest

from torch_geometric_crystal.benchmark import callbacks, training
from torch_geometric_crystal.benchmark.config import read_config
from torch_geometric_crystal.benchmark.sources import load_parts


def train(run, cif_folder, output, *flags):
    return run("train", "--data", cif_folder, "--model", "cgcnn", "--output", output, *flags)


def test_run_shows_its_errors_and_leaves_its_files(run, cif_folder, small_flags, tmp_path):
    result = train(run, cif_folder, tmp_path / "run", *small_flags)
    assert result.code == 0, result.err
    assert "Test errors" in result.out
    assert "epochs: 2" in result.out
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "history.csv", "best.ckpt", "last.ckpt", "predictions.csv", "metrics.json",
        "learning_curve.png", "parity.png",
    }  # fmt: skip


def test_flags_reach_the_recipe_on_top_of_the_models_preset(run, cif_folder, small_flags, tmp_path):
    train(run, cif_folder, tmp_path / "run", *small_flags, "--lr", "0.003", "--seed", "4")
    config = read_config(tmp_path / "run" / "config.yaml")
    assert (config["recipe"]["lr"], config["recipe"]["optimizer"], config["seed"]) == (0.003, "sgd", 4)
    assert config["model_options"] == {"channels": 8}


def test_preset_can_be_chosen(run, cif_folder, small_flags, tmp_path):
    train(run, cif_folder, tmp_path / "run", *small_flags, "--preset", "common", "--betas", "0.8", "0.9")
    recipe = read_config(tmp_path / "run" / "config.yaml")["recipe"]
    assert (recipe["optimizer"], recipe["betas"], recipe["epochs"]) == ("adamw", [0.8, 0.9], 2)


def test_members_of_an_ensemble_share_a_split(run, cif_folder, small_flags, tmp_path):
    for name, flags in {"a": ("0", "9"), "b": ("1", "9"), "c": ("1", "1")}.items():
        seeds = ("--seed", flags[0], "--split-seed", flags[1])
        result = train(run, cif_folder, tmp_path / name, *small_flags, "--epochs", "1", *seeds)
        assert result.code == 0, result.err
    lines = {name: (tmp_path / name / "predictions.csv").read_text().splitlines() for name in "abc"}
    tested = {name: [line.split(",")[0] for line in lines[name]] for name in "abc"}
    assert tested["a"] == tested["b"] != tested["c"]
    assert lines["a"] != lines["b"]  # other weights


def test_config_repeats_a_run_and_flags_override_it(run, small_run, tmp_path):
    result = run("train", "--config", small_run / "config.yaml", "--output", tmp_path / "same")
    assert result.code == 0, result.err
    same = json.loads((tmp_path / "same" / "metrics.json").read_text())
    assert same["test"] == json.loads((small_run / "metrics.json").read_text())["test"]
    run("train", "--config", small_run / "config.yaml", "--epochs", "1", "--output", tmp_path / "one")
    config = read_config(tmp_path / "one" / "config.yaml")
    assert (config["recipe"]["epochs"], config["recipe"]["batch_size"]) == (1, 6)


def test_run_is_not_overwritten_by_accident(run, cif_folder, small_run, small_flags):
    before = (small_run / "last.ckpt").read_bytes()
    result = train(run, cif_folder, small_run, *small_flags)
    assert result.code == 2
    assert "holds a run already; add --resume or --overwrite" in result.err
    assert (small_run / "last.ckpt").read_bytes() == before


def test_interrupted_run_says_how_to_continue_and_does(run, cif_folder, small_flags, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    original = training._Fit._step

    def interrupt(self, batch):
        if self.progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(training._Fit, "_step", interrupt)
    result = train(run, cif_folder, folder, *small_flags)
    assert result.code == 130
    assert f"tgcrystal train --resume --output {folder}" in result.out
    monkeypatch.undo()
    whole = train(run, cif_folder, tmp_path / "whole", *small_flags)
    assert whole.code == 0
    result = run("train", "--resume", "--output", folder)
    assert result.code == 0, result.err
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "whole"))
    assert first["test"] == second["test"]


def test_resumed_run_may_be_longer(run, cif_folder, small_flags, tmp_path):
    train(run, cif_folder, tmp_path / "run", *small_flags)
    result = run("train", "--resume", "--output", tmp_path / "run", "--epochs", "3")
    assert result.code == 0, result.err
    assert "epochs: 3" in result.out


def test_bar_is_shown_on_a_terminal(capsys):
    from rich.console import Console

    from torch_geometric_crystal.cli.display import TrainingBar

    bar = TrainingBar("model", {"e": "eV"})
    bar.console = Console(force_terminal=True, width=120)
    bar.on_message("opening")
    bar.on_start(2, 0, 1.0)
    bar.on_epoch_start(1, 2, 0)
    bar.on_batch_end(1, 0.5)
    bar.on_epoch_end({"epoch": 1, "train_loss": 0.25, "val_mae_e": 0.5}, True)
    bar.on_end("finished")
    shown = capsys.readouterr().out
    assert "loss 0.2500, val MAE 0.5 eV" in shown
    assert bar.progress is None


def test_without_a_terminal_a_long_epoch_says_where_it_is(capsys, monkeypatch):
    from torch_geometric_crystal.cli import display

    now = 1000.0
    monkeypatch.setattr(display.time, "perf_counter", lambda: now)
    bar = display.TrainingBar("model")
    bar.on_start(2, 0, None)
    bar.on_epoch_start(1, 300, 0)
    for _ in range(200):
        now += 1.0
        bar.on_batch_end(1, now)
    bar.on_epoch_end({"epoch": 1, "train_loss": 0.25, "val_mae_e": 0.5}, True)
    bar.on_end("finished")
    assert capsys.readouterr().out.splitlines() == [
        "model: epoch 1/2, batch 60 of 300",
        "model: epoch 1/2, batch 120 of 300",
        "model: epoch 1/2, batch 180 of 300",
        "model: epoch 1/2 loss 0.2500, val MAE 0.5",
    ]


def test_bar_knows_every_event():
    from torch_geometric_crystal.cli.display import TrainingBar

    events = [name for name in dir(callbacks.Callback) if name.startswith("on_")]
    assert all(callable(getattr(TrainingBar, name)) for name in events)


@pytest.mark.parametrize("flag", ["--seed", "--max-time"])
def test_numbers_are_checked(run, cif_folder, flag):
    result = run("train", "--data", cif_folder, flag, "-1")
    assert result.code == 2


@pytest.mark.parametrize("setting", ["merge_tolerance=abc", "tol=abc", "no_such=1"])
def test_a_graph_option_that_does_not_fit_is_named(run, cif_folder, tmp_path, setting):
    result = run("train", "--data", cif_folder, "--epochs", "1", "--output", tmp_path, "--graph-option", setting)
    assert result.code != 0
    assert setting.partition("=")[0] in result.err


def test_a_folder_without_a_run_cannot_be_resumed(run, tmp_path):
    result = run("train", "--resume", "--output", tmp_path / "none")
    assert result.code == 2
    assert f"--output: {tmp_path / 'none'} holds no run to continue; leave out --resume to start one" in result.err


@pytest.mark.filterwarnings("ignore:no crystal of the (val|test) part has a value of 'rare'")
def test_a_target_that_the_validation_lacks_does_not_end_the_run(run, cif_folder, small_flags, tmp_path):
    folder = shutil.copytree(cif_folder, tmp_path / "cifs")
    rows = [line.split(",") for line in (folder / "id_prop.csv").read_text().splitlines()]
    names = run_split(folder)["train"][:2]
    lines = [f"{name},{y},{'1.5' if name == names[0] else '2.5' if name == names[1] else ''}" for name, y in rows]
    (folder / "id_prop.csv").write_text("\n".join(["id,usual,rare", *lines]))
    flags = ["-t", "usual", "-t", "rare", "-o", tmp_path / "r", "-m", "cgcnn"]
    result = run("train", "-d", folder, *flags, *small_flags)
    assert result.code == 0, result.err
    assert "val MAE usual" in result.out
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert metrics["validation"]["best" if "best" in metrics["validation"] else "last"]
    assert (tmp_path / "r/learning_curve.png").is_file()


def run_split(folder):
    parts = load_parts(str(folder), (), None)
    return {part: [crystal.structure_id for crystal in crystals] for part, crystals in parts.parts.items()}
