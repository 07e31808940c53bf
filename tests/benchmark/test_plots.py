import math

import pytest
import torch

from torch_geometric_crystal.benchmark.plots import label, plot_learning_curve, plot_parity

PNG = b"\x89PNG"


def test_learning_curve_is_drawn(tmp_path):
    history = [{"epoch": k, "train_loss": 1 / k, "val_mae_e": 2 / k, "lr": 1, "seconds": 1} for k in range(1, 9)]
    plot_learning_curve(history, tmp_path / "c.png", ["e"], ["eV"], "title", {"e": 0.2})
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)


def test_learning_curve_without_validation_is_drawn(tmp_path):
    plot_learning_curve([{"epoch": 1, "train_loss": 1.0}], tmp_path / "c.png", ["e"], ["eV"])
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)


def test_learning_curve_needs_an_epoch(tmp_path):
    with pytest.raises(ValueError, match="history: expected at least one epoch"):
        plot_learning_curve([], tmp_path / "c.png", ["e"], ["eV"])


@pytest.mark.parametrize("known", [0, 1, 30])
def test_parity_is_drawn_whatever_is_known(tmp_path, known):
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(30, 2, generator=generator)
    target[known:, 1] = math.nan
    plot_parity(target.nan_to_num() + 0.1, target, tmp_path / "p.png", ["a", "b"], ["eV", ""])
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)


def test_label_carries_the_unit():
    assert label("gap", {"gap": "eV"}) == "gap (eV)"
    assert label("gap", {"gap": ""}) == "gap"


def test_a_curve_without_known_errors_is_drawn_all_the_same(tmp_path):
    nan = float("nan")
    history = [
        {"epoch": e, "train_loss": loss, "val_mae_a": nan, "val_mae_b": b}
        for e, loss, b in ((1, 0.0, nan), (2, 0.0, 1.0))
    ]
    plot_learning_curve(history, tmp_path / "curve.png", ["a", "b"], ["", ""])
    assert (tmp_path / "curve.png").stat().st_size > 1000
