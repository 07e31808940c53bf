"""The settings of ALIGNN's recipe in the training loop: one cycle, plain targets, weight decay of matrices alone."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from tests.benchmark.test_training import KILLED, UNITS, StopAfter, assert_same_run, train
from torch_geometric_crystal.benchmark.checkpoint import load_model, read_checkpoint
from torch_geometric_crystal.benchmark.config import write_config
from torch_geometric_crystal.benchmark.recipe import PRESETS
from torch_geometric_crystal.benchmark.recording import read_history
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.benchmark.training import fit, make_optimizer


@pytest.fixture
def crystals(make_crystals):
    return make_crystals(40)


@pytest.fixture
def config(make_config):
    return make_config(**PRESETS["alignn"] | {"epochs": 5, "batch_size": 8, "averaging_epochs": 2})


@pytest.fixture
def whole(crystals, config, tmp_path):
    """A run of five epochs (four batches each) that was never interrupted."""
    train(config, crystals, tmp_path / "whole")
    return tmp_path / "whole"


def groups(folder):
    return read_checkpoint(folder / "last.ckpt")["training"]["optimizer"]["param_groups"]


@pytest.mark.parametrize("batches", [1, 4, 6, 13, 19])
def test_interrupted_run_continues_to_the_same_bits(crystals, config, tmp_path, whole, batches):
    result, _ = train(config, crystals, tmp_path / "parts", [StopAfter(batches)])
    assert (result.reason, result.progress.step) == ("interrupted", batches)
    torch.manual_seed(12345)
    train(config, crystals, tmp_path / "parts", resume=True)
    assert_same_run(whole, tmp_path / "parts")
    assert groups(whole) == groups(tmp_path / "parts")


def test_run_killed_in_mid_epoch_continues_to_the_same_bits(crystals, config, tmp_path, whole):
    write_config(config, tmp_path / "config.yaml")
    output = tmp_path / "killed"
    script = textwrap.dedent(KILLED).format(
        folder=os.path.dirname(__file__), config=str(tmp_path / "config.yaml"), output=str(output)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(read_history(output / "history.csv")) == 3
    train(config, crystals, output, resume=True)
    assert_same_run(whole, output)
    assert groups(whole) == groups(output)


def test_learning_rate_and_momentum_follow_the_cycle_of_torch(crystals, config, whole):
    weight = [torch.zeros(1, requires_grad=True)]
    optimizer = torch.optim.AdamW(weight, betas=config.recipe.betas)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=20, pct_start=0.3)
    rates = []
    for step in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 19:
            scheduler.step()
    assert [row["lr"] for row in read_history(whole / "history.csv")] == pytest.approx(rates[3::4])
    for group in groups(whole):
        assert (group["lr"], *group["betas"]) == pytest.approx((rates[-1], *optimizer.param_groups[0]["betas"]))


def test_plain_targets_are_learnt_without_a_normalisation(crystals, config, tmp_path):
    recipe = dataclasses.replace(config.recipe, epochs=60, lr=0.3)
    result, model = train(dataclasses.replace(config, recipe=recipe), crystals, tmp_path)
    errors = [row["val_mae_energy"] for row in result.progress.history]
    assert min(errors) < 0.5 * errors[0]
    for normalization in (model.normalization, load_model(tmp_path).normalization):
        assert (normalization.mean.item(), normalization.std.item()) == (0.0, 1.0)


def test_the_loss_of_plain_targets_is_in_their_units(crystals, config, tmp_path):
    """The first loss of plain targets is that of standardised ones times the variance, for a model that says 0."""
    recipe = dataclasses.replace(config.recipe, epochs=1, batch_size=100, lr=1e-30)
    model = build_run_model(dataclasses.replace(config, recipe=recipe), *UNITS)
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.zero_()
    result = fit(model, crystals, [], dataclasses.replace(config, recipe=recipe), model.card, tmp_path)
    expected = torch.cat([crystal.y for crystal in crystals]).square().mean().item()
    assert result.progress.history[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_plain_targets_are_checked_as_others_are(crystals, config, tmp_path):
    crystals[0].y.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"y: expected finite values or NaN, received .an infinite value"):
        train(config, crystals, tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_of_matrices_alone(tiny, make_config, optimizer):
    model = tiny()
    recipe = make_config(optimizer=optimizer, weight_decay=0.2, decay_vectors=False).recipe
    matrices, vectors = make_optimizer(model, recipe).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.2, 0.0)
    assert {id(p) for p in matrices["params"]} == {id(model.embedding.weight), id(model.out.weight)}
    assert {id(p) for p in vectors["params"]} == {id(p) for p in (model.norm.weight, model.norm.bias, model.out.bias)}
