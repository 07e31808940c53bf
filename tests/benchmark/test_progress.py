import math
import random

import numpy as np
import pytest
import torch

from torch_geometric_crystal.benchmark.progress import Progress, random_state, restore_random_state, seed_everything

CPU = torch.device("cpu")


def draw():
    return random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), torch.rand(3).tolist()  # noqa: NPY002


def test_restored_random_state_gives_the_same_numbers():
    seed_everything(3)
    draw()
    state = random_state(CPU)
    expected = draw()
    seed_everything(4)
    restore_random_state(state, CPU)
    assert draw() == expected


def test_seed_determines_all_generators():
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_random_state_is_tensors_and_plain_values(tmp_path):
    torch.save(random_state(CPU), tmp_path / "state")
    torch.load(tmp_path / "state", weights_only=True)


def test_train_loss_weights_targets_alike():
    assert Progress(losses=[1.0, 4.0], weights=[3, 1]).train_loss() == pytest.approx(7 / 4)


def test_finished_epoch_becomes_a_row():
    progress = Progress(losses=[1.0], weights=[2], batch=1)
    assert progress.finish_epoch(1e-3, 2.5, {"val_mae_e": 0.5}, 0.5)
    assert progress.history == [{"epoch": 1, "train_loss": 1.0, "val_mae_e": 0.5, "lr": 1e-3, "seconds": 2.5}]
    assert (progress.epoch, progress.batch, progress.losses, progress.weights) == (1, 0, [], [])


def test_best_epoch_is_the_first_with_the_lowest_error():
    progress = Progress()
    results = [progress.finish_epoch(1, 1, {}, error) for error in (3.0, 1.0, 1.0, math.nan, 2.0)]
    assert results == [True, True, False, False, False]
    assert (progress.best_epoch, progress.best_error) == (2, 1.0)


def test_dictionary_round_trip():
    progress = Progress(epoch=2, losses=[1.0], weights=[2], history=[{"epoch": 1.0}])
    assert Progress.from_dict(progress.to_dict()) == progress
