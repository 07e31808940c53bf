import dataclasses
import json
import os
import signal

import pytest
import torch

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import CheckpointError, export_model, load_model
from torch_geometric_crystal.benchmark.config import RunConfig, read_config
from torch_geometric_crystal.benchmark.run import run_training, train_and_evaluate
from torch_geometric_crystal.data import to_structure

FILES = {
    "config.yaml", "history.csv", "best.ckpt", "last.ckpt", "predictions.csv", "metrics.json", "learning_curve.png",
    "parity.png",
}  # fmt: skip


def assert_equal_weights(first, second):
    a, b = first.state_dict(), second.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_run_leaves_its_files(parts, make_config, tmp_path):
    result = train_and_evaluate(make_config(), parts, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["reported_weights"] == "averaged"
    assert set(metrics["test"]) == set(metrics["validation"]) == {"averaged", "best", "last"}
    assert metrics["crystals"] == {"train": 40, "val": 10, "test": 10}
    assert metrics["training"] | {"seconds": 0} == {
        "ended": "finished", "epochs": 5, "steps": 25, "seconds": 0, "best_epoch": 5, "averaged_epochs": 2,
    } | {"best_epoch": metrics["training"]["best_epoch"]}  # fmt: skip
    assert metrics["test"]["averaged"]["targets"]["energy"]["mae"] < metrics["mean_predictor"]["energy"]["mae"]
    assert result.metrics["parameters"] == sum(p.numel() for p in result.model.parameters())


def test_config_of_a_run_repeats_it(parts, make_config, tmp_path):
    train_and_evaluate(make_config(), parts, tmp_path / "first")
    config = RunConfig.from_dict(read_config(tmp_path / "first" / "config.yaml"))
    train_and_evaluate(config, parts, tmp_path / "second")
    assert_equal_weights(*(load_model(tmp_path / name) for name in ("first", "second")))


def test_without_averaging_the_best_epoch_is_reported(parts, make_config, tmp_path):
    result = train_and_evaluate(make_config(averaging_epochs=0), parts, tmp_path)
    assert result.metrics["reported_weights"] == "best"
    assert set(result.metrics["test"]) == {"best", "last"}


def test_without_validation_and_test_the_last_weights_are_reported(parts, make_config, tmp_path):
    alone = dataclasses.replace(parts, parts=parts.parts | {"val": [], "test": []})
    result = train_and_evaluate(make_config(averaging_epochs=0), alone, tmp_path)
    assert result.metrics["reported_weights"] == "last"
    assert result.metrics["test"] == {}
    assert not (tmp_path / "predictions.csv").exists()


def test_run_stopped_before_its_first_epoch_is_evaluated_all_the_same(parts, make_config, tmp_path):
    result = train_and_evaluate(dataclasses.replace(make_config(), max_time=1e-9), parts, tmp_path)
    assert result.metrics["training"]["ended"] == "time"
    assert not (tmp_path / "learning_curve.png").exists()


def test_interrupted_run_has_no_metrics_yet(parts, make_config, tmp_path):
    class Stop(Callback):
        def on_batch_end(self, epoch, seconds):
            os.kill(os.getpid(), signal.SIGINT)

    result = train_and_evaluate(make_config(), parts, tmp_path, [Stop()])
    assert (result.model, result.metrics) == (None, {})
    assert train_and_evaluate(make_config(), parts, tmp_path, resume=True).metrics["training"]["steps"] == 25


def test_settings_of_a_run_that_is_not_continued_stay_what_they_were(make_config, parts, tmp_path):
    train_and_evaluate(make_config(epochs=2), parts, tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    for change in (make_config(epochs=3, optimizer="sgd"), dataclasses.replace(make_config(epochs=3), seed=1)):
        with pytest.raises(CheckpointError):
            train_and_evaluate(change, parts, tmp_path, resume=True)
        assert (tmp_path / "config.yaml").read_text() == before
    train_and_evaluate(make_config(epochs=2, lr=0.5), parts, tmp_path, resume=True)  # nothing is left to train
    assert (tmp_path / "config.yaml").read_text() == before
    train_and_evaluate(make_config(epochs=3), parts, tmp_path, resume=True)
    assert read_config(tmp_path / "config.yaml")["recipe"]["epochs"] == 3


def test_a_longer_run_that_stops_at_once_reports_what_its_folder_stands_for(make_config, parts, tmp_path):
    settings = {"patience": 1, "lr": 1.0}
    epochs = train_and_evaluate(make_config(epochs=50, **settings), parts, tmp_path).metrics["training"]["epochs"]
    first = train_and_evaluate(make_config(epochs=epochs, **settings), parts, tmp_path)
    assert (first.metrics["training"]["ended"], first.metrics["reported_weights"]) == ("finished", "averaged")
    before = (tmp_path / "config.yaml").read_text()
    second = train_and_evaluate(make_config(epochs=100, **settings), parts, tmp_path, resume=True)
    assert second.metrics["training"] == first.metrics["training"] | {"ended": "early"}
    assert second.metrics["reported_weights"] == "averaged"
    assert_equal_weights(second.model, load_model(tmp_path))
    assert (tmp_path / "config.yaml").read_text() == before  # no epoch was trained by the new ones


def test_a_folder_without_its_best_checkpoint_reports_the_last_one(make_config, parts, tmp_path):
    train_and_evaluate(make_config(epochs=2, averaging_epochs=0), parts, tmp_path)
    (tmp_path / "best.ckpt").unlink()
    result = train_and_evaluate(make_config(epochs=2, averaging_epochs=0), parts, tmp_path, resume=True)
    assert result.metrics["reported_weights"] == "last"
    assert_equal_weights(result.model, load_model(tmp_path))


def test_a_card_has_the_trainings_that_gave_the_weights(make_config, parts, tmp_path):
    train_and_evaluate(make_config(epochs=1), parts, tmp_path / "first")
    config = dataclasses.replace(make_config(epochs=1), data="/data/of/others.npz", init_from=str(tmp_path / "first"))
    card = train_and_evaluate(config, parts, tmp_path / "second").model.card
    assert [training["data"] for training in card.trainings] == ["random", "others.npz"]
    assert [training["fold"] for training in card.trainings] == [None, None]
    assert card.trainings[1]["settings"]["recipe"]["epochs"] == 1
    longer = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, epochs=3))
    card = train_and_evaluate(longer, parts, tmp_path / "second", resume=True).model.card
    assert [training["settings"]["recipe"]["epochs"] for training in card.trainings] == [1, 3]
    export_model(load_model(tmp_path / "second"), tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").card == card


@pytest.mark.parametrize(
    ("model", "options"),
    [("cgcnn", {"channels": 8}), ("crystalformer", {"channels": 16, "num_blocks": 1, "num_heads": 2, "num_basis": 8})],
)
def test_published_models_train_from_a_folder_of_files(make_crystals, tmp_path, model, options):
    folder = tmp_path / "cifs"
    folder.mkdir()
    lines = []
    for crystal in make_crystals(12):
        to_structure(crystal).to(filename=str(folder / f"{crystal.structure_id}.cif"))
        lines.append(f"{crystal.structure_id},{crystal.y.item()}")
    (folder / "id_prop.csv").write_text("\n".join(lines))
    config = RunConfig.from_dict(
        {
            "data": str(folder),
            "model": model,
            "model_options": options,
            "neighborhood": {"cutoff": 4.0},
            "device": "cpu",
            "recipe": {"epochs": 2, "batch_size": 6, "averaging_epochs": 1},
        }
    )
    seen = []

    class Listen(Callback):
        def on_message(self, text):
            seen.append(text)

    result = run_training(config, tmp_path / "run", [Listen()])
    assert len(seen) == 2
    assert result.metrics["crystals"] == {"train": 10, "val": 1, "test": 1}
    assert ("truncation" in result.metrics["test"]["averaged"]) == (model == "crystalformer")
