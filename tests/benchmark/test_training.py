import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import CheckpointError, load_model, read_checkpoint
from torch_geometric_crystal.benchmark.recording import read_history
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.benchmark.training import TrainingDivergedError, fit, make_fabric, make_optimizer

UNITS = (["energy"], ["eV/atom"])


def train(config, crystals, output, callbacks=(), resume=False):
    model = build_run_model(config, *UNITS)
    return fit(model, crystals[:30], crystals[30:], config, model.card, output, callbacks, resume), model


def assert_same_run(first, second):
    """Equal weights, optimiser state, average and history (but for the times): to the bit."""
    a, b = read_checkpoint(first / "last.ckpt"), read_checkpoint(second / "last.ckpt")
    for key in ("state_dict", "averaged_state_dict"):
        assert a[key].keys() == b[key].keys()
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])
    for index, state in a["training"]["optimizer"]["state"].items():
        assert all(torch.equal(value, b["training"]["optimizer"]["state"][index][k]) for k, value in state.items())
    assert torch.equal(a["training"]["random"]["torch"], b["training"]["random"]["torch"])
    assert a["training"]["random"]["python"] == b["training"]["random"]["python"]
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in read_history(p / "history.csv")]
        for p in (first, second)
    ]
    assert rows[0] == rows[1]


class StopAfter(Callback):
    """Sends a signal after a number of batches."""

    def __init__(self, batches, number=signal.SIGINT):
        self.left, self.number = batches, number

    def on_batch_end(self, epoch, seconds):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def crystals(make_crystals):
    return make_crystals(40)


@pytest.fixture
def whole(crystals, make_config, tmp_path):
    """A run of five epochs (four batches each) that was never interrupted."""
    train(make_config(), crystals, tmp_path / "whole")
    return tmp_path / "whole"


def test_training_lowers_the_error(crystals, make_config, tmp_path):
    result, _ = train(make_config(epochs=30), crystals, tmp_path)
    errors = [row["val_mae_energy"] for row in result.progress.history]
    assert result.reason == "finished"
    assert min(errors) < 0.5 * errors[0]


def test_same_seed_gives_the_same_bits_and_another_does_not(crystals, make_config, tmp_path, whole):
    train(make_config(), crystals, tmp_path / "again")
    assert_same_run(whole, tmp_path / "again")
    train(dataclasses.replace(make_config(), seed=1), crystals, tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_run(whole, tmp_path / "other")


@pytest.mark.parametrize("batches", [1, 2, 4, 6, 13, 19])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_continues_to_the_same_bits(crystals, make_config, tmp_path, whole, batches, number):
    result, _ = train(make_config(), crystals, tmp_path / "parts", [StopAfter(batches, number)])
    assert result.reason == "interrupted"
    assert result.progress.step == batches
    torch.manual_seed(12345)
    result, _ = train(make_config(), crystals, tmp_path / "parts", resume=True)
    assert (result.reason, result.progress.step) == ("finished", 20)
    assert_same_run(whole, tmp_path / "parts")


def test_run_in_many_parts_continues_to_the_same_bits(crystals, make_config, tmp_path, whole):
    for _ in range(6):
        train(make_config(), crystals, tmp_path / "parts", [StopAfter(3)], resume=True)
    train(make_config(), crystals, tmp_path / "parts", resume=True)
    assert_same_run(whole, tmp_path / "parts")


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from conftest import TinyModel, random_crystals
from torch_geometric_crystal.nn.models import MODELS
MODELS["tiny"] = TinyModel
from test_training import StopAfter, train
from torch_geometric_crystal.benchmark.config import RunConfig, read_config
crystals = random_crystals(40)
train(RunConfig.from_dict(read_config({config!r})), crystals, {output!r}, [StopAfter(14, signal.SIGKILL)])
"""


def test_run_killed_in_mid_epoch_continues_to_the_same_bits(crystals, make_config, tmp_path, whole):
    from torch_geometric_crystal.benchmark.config import write_config

    write_config(make_config(), tmp_path / "config.yaml")
    output = tmp_path / "killed"
    script = textwrap.dedent(KILLED).format(
        folder=os.path.dirname(__file__), config=str(tmp_path / "config.yaml"), output=str(output)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(read_history(output / "history.csv")) == 3
    (output / ".last.ckpt.abc.tmp").write_bytes(b"left by the kill")
    train(make_config(), crystals, output, resume=True)
    assert_same_run(whole, output)
    assert not list(output.glob(".*tmp"))


def test_checkpoint_within_a_long_epoch(crystals, make_config, tmp_path, whole, monkeypatch):
    from torch_geometric_crystal.benchmark import training

    class Fault(Callback):
        def on_batch_end(self, epoch, seconds):
            if epoch == 2:
                read = read_checkpoint(tmp_path / "parts" / "last.ckpt")["training"]["progress"]
                if (read["epoch"], read["batch"]) == (1, 2):
                    raise MemoryError

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(MemoryError):
        train(make_config(), crystals, tmp_path / "parts", [Fault()])
    train(make_config(), crystals, tmp_path / "parts", resume=True)
    assert_same_run(whole, tmp_path / "parts")


def test_longer_training_can_be_asked_for_on_resuming(crystals, make_config, tmp_path, whole):
    train(make_config(epochs=3), crystals, tmp_path / "parts")
    result, _ = train(make_config(), crystals, tmp_path / "parts", resume=True)
    assert result.averaged_epochs == 2
    assert_same_run(whole, tmp_path / "parts")


def test_finished_run_is_left_as_it_is(crystals, make_config, whole):
    before = (whole / "last.ckpt").read_bytes()
    result, _ = train(make_config(), crystals, whole, resume=True)
    assert result.reason == "finished"
    assert (whole / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("change", ["seed", "model", "data"])
def test_run_of_another_kind_is_not_continued(crystals, make_config, whole, change):
    config = make_config()
    if change == "seed":
        config = dataclasses.replace(config, seed=1)
    elif change == "model":
        config = dataclasses.replace(config, model_options={"channels": 4})
    else:
        crystals = crystals[1:]
    with pytest.raises(CheckpointError, match="belongs to a run with another model, seed or training set"):
        train(config, crystals, whole, resume=True)


def test_optimizer_of_another_kind_is_not_continued(crystals, make_config, whole):
    for change in ({"optimizer": "sgd"}, {"decay_vectors": False}):
        with pytest.raises(CheckpointError, match=f"was trained with {next(iter(change))} "):
            train(make_config(epochs=6, **change), crystals, whole, resume=True)


def test_a_run_with_other_frozen_weights_is_not_continued(crystals, make_config, whole):
    config = dataclasses.replace(make_config(epochs=6), freeze=("embedding.*",))
    with pytest.raises(CheckpointError, match=r"was trained with freeze \[\], not \['embedding"):
        train(config, crystals, whole, resume=True)


def test_a_resumed_run_takes_its_own_recipe(crystals, make_config, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "same")
    train(make_config(epochs=6), crystals, tmp_path / "same", resume=True)
    train(make_config(epochs=6, weight_decay=50.0, betas=(0.5, 0.6)), crystals, whole, resume=True)
    (group,) = read_checkpoint(whole / "last.ckpt")["training"]["optimizer"]["param_groups"]
    assert (group["weight_decay"], group["betas"]) == (50.0, (0.5, 0.6))
    decayed, plain = (
        sum(float(value.abs().sum()) for value in read_checkpoint(path / "last.ckpt")["state_dict"].values())
        for path in (whole, tmp_path / "same")
    )
    assert decayed < 0.9 * plain


def test_a_run_of_an_earlier_version_is_continued(crystals, make_config, whole):
    content = torch.load(whole / "last.ckpt", weights_only=True)
    content["card"]["library_version"] = "0.0.1"
    for name in ("split", "trainings"):
        del content["card"][name]
    for absent in (content["card"]["neighborhood"].pop("cutoff"), content["training"].pop("freeze")):
        assert absent is not None
    torch.save(content, whole / "last.ckpt")
    result, _ = train(make_config(epochs=6), crystals, whole, resume=True)
    assert result.progress.epoch == 6


def test_model_alone_cannot_be_resumed(crystals, make_config, whole):
    (whole / "best.ckpt").rename(whole / "last.ckpt")
    with pytest.raises(CheckpointError, match="has no training state"):
        train(make_config(), crystals, whole, resume=True)


def test_incomplete_training_state_is_named(crystals, make_config, whole):
    content = torch.load(whole / "last.ckpt", weights_only=True)
    del content["training"]["optimizer"]
    torch.save(content, whole / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"its training state is incomplete \('optimizer'\)"):
        train(make_config(), crystals, whole, resume=True)


def test_averaged_weights_are_the_mean_of_the_last_epochs(crystals, make_config, tmp_path):
    seen = []

    class Keep(Callback):
        def on_epoch_end(self, row, is_best):
            content = read_checkpoint(tmp_path / "last.ckpt")
            seen.append(content["state_dict"]["out.weight"])
            assert (content["averaged_state_dict"] is None) == (row["epoch"] <= 3)

    result, _ = train(make_config(epochs=6, averaging_epochs=3), crystals, tmp_path, [Keep()])
    expected = torch.stack(seen[3:]).double().mean(0).float()
    assert result.averaged_epochs == 3
    assert torch.equal(load_model(tmp_path, "averaged").out.weight, expected)
    assert torch.equal(load_model(tmp_path, "last").out.weight, seen[-1])


def test_best_checkpoint_is_that_of_the_best_epoch(crystals, make_config, tmp_path):
    class Keep(Callback):
        weights: torch.Tensor

        def on_epoch_end(self, row, is_best):
            if is_best:
                self.weights = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["out.weight"]

    keep = Keep()
    result, _ = train(make_config(epochs=12, lr=0.1), crystals, tmp_path, [keep])
    errors = [row["val_mae_energy"] for row in result.progress.history]
    assert errors[result.progress.best_epoch - 1] == min(errors)
    assert torch.equal(load_model(tmp_path / "best.ckpt").out.weight, keep.weights)


def test_early_stopping(crystals, make_config, tmp_path):
    result, _ = train(make_config(epochs=100, lr=1e-9, patience=3), crystals, tmp_path)
    assert result.reason == "early"
    assert result.progress.epoch == result.progress.best_epoch + 3


def test_time_limit_stops_within_an_epoch_and_can_be_raised(crystals, make_config, tmp_path, whole):
    config = dataclasses.replace(make_config(), max_time=1e-9)
    result, _ = train(config, crystals, tmp_path / "parts")
    assert (result.reason, result.progress.step) == ("time", 1)
    result, _ = train(config, crystals, tmp_path / "parts", resume=True)
    assert (result.reason, result.progress.step) == ("time", 1)
    train(make_config(), crystals, tmp_path / "parts", resume=True)
    assert_same_run(whole, tmp_path / "parts")


def test_averaging_starts_with_the_last_share_of_the_time(crystals, make_config, tmp_path):
    class Slow(Callback):
        """Makes each epoch take a tenth of the time limit, by the run's own clock."""

        def on_start(self, epochs, epoch, max_time):
            self.limit = 60 * max_time

        def on_batch_end(self, epoch, seconds):
            import time

            time.sleep(self.limit / 10 / 4)

    config = dataclasses.replace(make_config(epochs=1000, averaging_epochs=300), max_time=2.0 / 60)
    result, _ = train(config, crystals, tmp_path, [Slow()])
    assert result.reason == "time"
    assert 5 <= result.progress.epoch <= 10
    assert 1 <= result.averaged_epochs <= 4


def test_diverged_training_is_reported_and_the_checkpoint_stays(crystals, make_config, tmp_path):
    class Poison(Callback):
        def on_epoch_start(self, epoch, num_batches, done):
            if epoch == 3:
                crystals[0].y.fill_(float("inf"))

    with pytest.raises(
        TrainingDivergedError, match=r"training loss is (inf|nan) in epoch 3: try a lower learning rate"
    ):
        train(make_config(), crystals, tmp_path, [Poison()])
    assert read_checkpoint(tmp_path / "last.ckpt")["training"]["progress"]["epoch"] == 2


def test_without_validation_there_is_no_best_epoch(crystals, make_config, tmp_path):
    config = make_config(epochs=2)
    model = build_run_model(config, *UNITS)
    result = fit(model, crystals, [], config, model.card, tmp_path)
    assert result.progress.best_epoch == 0
    assert not (tmp_path / "best.ckpt").exists()


def test_missing_targets_are_ignored(make_crystals, make_config, tmp_path):
    crystals = make_crystals(30, num_targets=2)
    for index, crystal in enumerate(crystals):
        crystal.y[0, index % 2] = float("nan")
    config = make_config(epochs=20)
    model = build_run_model(config, ["a", "b"], ["", ""])
    result = fit(model, crystals, crystals, config, model.card, tmp_path)
    last = result.progress.history[-1]
    assert last["val_mae_a"] < result.progress.history[0]["val_mae_a"]
    assert last["val_mae_b"] < result.progress.history[0]["val_mae_b"]


def test_double_precision_trains_in_float64(crystals, make_config, tmp_path):
    config = dataclasses.replace(make_config(epochs=1), precision="64")
    train(config, crystals, tmp_path)
    assert load_model(tmp_path).out.weight.dtype == torch.float64
    assert crystals[0].pos.dtype == torch.float32


def test_mixed_precision_trains(crystals, make_config, tmp_path):
    result, model = train(dataclasses.replace(make_config(epochs=2), precision="bf16-mixed"), crystals, tmp_path)
    assert result.progress.epoch == 2
    assert model.out.weight.dtype == torch.float32


def test_learning_rate_follows_the_schedule(crystals, make_config, tmp_path):
    result, _ = train(make_config(epochs=3, lr=0.1, schedule_steps=4), crystals, tmp_path)
    # 4 steps an epoch: the last steps of the epochs are t = 3, 7, 11.
    expected = [0.1 * (4 / (4 + t)) ** 0.5 for t in (3, 7, 11)]
    assert [row["lr"] for row in result.progress.history] == pytest.approx(expected)


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_gradients_are_clipped_when_asked(crystals, make_config, tmp_path, clip_norm):
    # One step of plain SGD with learning rate 1: the change of the weights is the gradient.
    config = make_config(
        epochs=1, batch_size=100, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=1.0, clip_norm=clip_norm
    )
    start = build_run_model(config, *UNITS)
    _, model = train(config, crystals, tmp_path)
    moved = [(a - b).square().sum() for a, b in zip(start.parameters(), model.parameters(), strict=True)]
    norm = torch.stack(moved).sum().sqrt().item()
    assert norm == pytest.approx(clip_norm, rel=1e-2) if clip_norm else norm > 0.1


@pytest.mark.parametrize(("optimizer", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizer_has_the_recipes_settings(tiny, make_config, optimizer, kind):
    recipe = make_config(optimizer=optimizer, lr=0.3, weight_decay=0.2).recipe
    result = make_optimizer(tiny(), recipe)
    assert type(result) is kind
    assert (result.param_groups[0]["lr"], result.param_groups[0]["weight_decay"]) == (0.3, 0.2)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1"])
def test_unknown_device_is_named(device):
    with pytest.raises(ValueError, match="device: expected auto, cpu, cuda"):
        make_fabric(device, "32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_absent_device_is_named():
    with pytest.raises(ValueError, match="device: 'cuda' is not available here"):
        make_fabric("cuda", "32")


def test_training_needs_crystals(make_config, tmp_path):
    with pytest.raises(ValueError, match="train: expected at least one crystal"):
        train(make_config(), [], tmp_path)


def test_new_run_removes_the_files_of_an_older_one(crystals, make_config, tmp_path, whole):
    class Fault(Callback):
        def on_batch_end(self, epoch, seconds):
            raise MemoryError

    with pytest.raises(MemoryError):
        train(make_config(), crystals, whole, [Fault()])
    assert [path.name for path in whole.iterdir()] == []
