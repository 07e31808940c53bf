"""Weights from another run: what is taken, what is new, and what stays as it was."""

import dataclasses
import json
import shutil

import pytest
import torch

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import (
    CheckpointError,
    export_model,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from torch_geometric_crystal.benchmark.config import read_config
from torch_geometric_crystal.benchmark.fine_tuning import from_checkpoint, take_weights
from torch_geometric_crystal.benchmark.run import build_run_model, train_and_evaluate
from torch_geometric_crystal.benchmark.sources import CrystalParts


@pytest.fixture
def other_parts(make_crystals):
    """Crystals with other targets than those of ``parts``."""
    crystals = make_crystals(40, num_targets=2, seed=1)
    cut = {"train": crystals[:20], "val": crystals[20:30], "test": crystals[30:]}
    return CrystalParts(cut, ("gap", "volume"), ("eV", ""))


def equal(first, second, names):
    return [name for name in names if torch.equal(first[name], second[name])]


def test_same_targets_keep_head_and_normalization(trained, make_config, parts):
    folder, source = trained
    config = make_config(epochs=1)
    model = build_run_model(config, parts.target_names, parts.units)
    transfer = take_weights(model, folder, model.card)
    assert transfer.same_targets
    assert transfer.new == ()
    assert equal(model.state_dict(), source.state_dict(), source.state_dict()) == list(source.state_dict())


@pytest.mark.parametrize("change", ["names", "units", "task"])
def test_other_targets_get_a_new_head_and_normalization(trained, make_config, change):
    folder, source = trained
    config = dataclasses.replace(make_config(), task="classification" if change == "task" else "regression", seed=1)
    names, units = (["energy"], ["meV/atom"]) if change == "units" else (["other"], ["eV/atom"])
    classes = ("a", "b") if change == "task" else ()
    model = build_run_model(config, names, units, classes)
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    transfer = take_weights(model, folder, model.card)
    head = ["out.weight", "out.bias", "normalization.mean", "normalization.std"]
    assert not transfer.same_targets
    assert sorted(transfer.new) == sorted(head)
    assert equal(model.state_dict(), drawn, head) == head
    assert equal(model.state_dict(), source.state_dict(), transfer.taken) == list(transfer.taken)
    assert "new: out.weight, out.bias, normalization.mean" in transfer.describe()


def test_unit_that_one_side_does_not_know_is_no_difference(trained, make_config):
    model = build_run_model(make_config(), ["energy"], [""])
    assert take_weights(model, trained[0], model.card).same_targets


def test_architecture_and_graph_come_from_the_checkpoint_unless_given(parts, make_config, tmp_path):
    first = dataclasses.replace(make_config(epochs=1), model_options={"channels": 6}, neighborhood={"cutoff": 3.5})
    train_and_evaluate(first, parts, tmp_path / "first")
    config = from_checkpoint(dataclasses.replace(make_config(), init_from=str(tmp_path / "first")))
    assert config.model_options == {"channels": 6, "dropout": 0.2, "cutoff": 4.0}
    assert config.neighborhood["cutoff"] == 3.5
    given = dataclasses.replace(config, model_options={"channels": 4}, neighborhood={"cutoff": 3.0})
    assert from_checkpoint(given).model_options["channels"] == 4
    assert from_checkpoint(given).neighborhood["cutoff"] == 3.0


def test_exported_weights_can_be_taken(trained, make_config, tmp_path):
    export_model(trained[1], tmp_path / "m.safetensors")
    model = build_run_model(make_config(), ["energy"], ["eV/atom"])
    assert take_weights(model, tmp_path / "m.safetensors", model.card).same_targets


def test_checkpoint_of_another_model_is_refused(trained, make_config):
    config = dataclasses.replace(make_config(), model="cgcnn", init_from=str(trained[0]))
    with pytest.raises(ValueError, match=r"model: expected tiny, which .*trained is \(--model tiny\), received"):
        from_checkpoint(config)


def test_checkpoint_in_which_nothing_fits_is_refused(trained, make_config):
    model = build_run_model(dataclasses.replace(make_config(), model_options={"channels": 3}), ["other"], [""])
    with pytest.raises(CheckpointError, match="has no tensor of this model's names and shapes"):
        take_weights(model, trained[0], model.card)


def test_frozen_weights_and_statistics_stay_and_have_no_optimizer_state(trained, other_parts, make_config, tmp_path):
    folder, source = trained
    config = dataclasses.replace(make_config(epochs=3), init_from=str(folder), freeze=("embedding.*", "norm.*"))
    seen = []

    class Listen(Callback):
        def on_message(self, text):
            seen.append(text)

    result = train_and_evaluate(config, other_parts, tmp_path / "tuned", [Listen()])
    before, after = source.state_dict(), load_model(tmp_path / "tuned", "last").state_dict()
    frozen = [name for name in before if name.startswith(("embedding.", "norm."))]
    assert "norm.running_mean" in frozen
    assert equal(before, after, frozen) == frozen
    state = read_checkpoint(tmp_path / "tuned" / "last.ckpt")["training"]["optimizer"]
    assert [len(group["params"]) for group in state["param_groups"]] == [2]
    assert len(state["state"]) == 2
    assert after["normalization.mean"].tolist() != before["normalization.mean"].tolist() * 2
    assert any(text.startswith("frozen: 3 of 5 tensors, 176 of") for text in seen)
    metrics = json.loads((tmp_path / "tuned" / "metrics.json").read_text())
    assert (metrics["init_from"], metrics["frozen"]) == (str(folder), 3)
    assert result.metrics["test"]["averaged"]["targets"].keys() == {"gap", "volume"}


def test_kept_normalization_is_not_fitted_anew(trained, parts, make_config, make_crystals, tmp_path):
    folder, source = trained
    shifted = make_crystals(40)
    for crystal in shifted:
        crystal.y += 100.0
    others = dataclasses.replace(parts, parts={"train": shifted[:30], "val": shifted[30:], "test": []})
    config = dataclasses.replace(make_config(epochs=1), init_from=str(folder))
    train_and_evaluate(config, others, tmp_path / "tuned")
    assert load_model(tmp_path / "tuned").normalization.mean.tolist() == source.normalization.mean.tolist()


def test_interrupted_run_continues_without_the_first_checkpoint(trained, other_parts, make_config, tmp_path):
    folder, _ = trained
    start = tmp_path / "start"
    shutil.copytree(folder, start)
    settings = {"init_from": str(start), "freeze": ("embedding.*",)}
    train_and_evaluate(dataclasses.replace(make_config(epochs=4), **settings), other_parts, tmp_path / "whole")
    train_and_evaluate(dataclasses.replace(make_config(epochs=2), **settings), other_parts, tmp_path / "parts")
    shutil.rmtree(start)
    train_and_evaluate(
        dataclasses.replace(make_config(epochs=4), **settings), other_parts, tmp_path / "parts", resume=True
    )
    a, b = (read_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "parts"))
    assert equal(a, b, a) == list(a)
    assert read_config(tmp_path / "parts" / "config.yaml")["model_options"]["channels"] == 8


@pytest.mark.parametrize(
    ("names", "units", "same"), [(("target",), ("",), False), (("gap",), ("",), True), (("target",), ("eV",), True)]
)
def test_targets_without_names_and_units_are_not_taken_for_the_same(make_config, tmp_path, names, units, same):
    cards = [build_run_model(make_config(), names, units) for _ in range(2)]
    save_checkpoint(tmp_path / "a.ckpt", cards[0].card, cards[0].state_dict())
    transfer = take_weights(cards[1], tmp_path / "a.ckpt", cards[1].card)
    assert transfer.same_targets == same
    assert ("normalization.mean" in transfer.new) != same
    expected = "the head and the normalisation of the targets are kept" if same else "have no names"
    assert expected in transfer.describe()
