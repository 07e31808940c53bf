"""Two processes on the CPU train as one does, stop as one does, and end together."""

import dataclasses
import multiprocessing
import os
import signal
import time

import pytest
import torch

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import read_checkpoint
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.processes import Group, PackedCrystals, WorkerError
from torch_geometric_crystal.benchmark.recording import read_history
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.benchmark.training import fit
from torch_geometric_crystal.nn import CGCNN
from torch_geometric_crystal.nn.batch_norm import BatchNorm
from torch_geometric_crystal.testing import small_crystals

OPTIONS = {
    "crystalformer": {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 8},
    "cgcnn": {"channels": 8, "num_layers": 1, "hidden_channels": 8},
    "alignn": {"channels": 8, "embedding_channels": 4, "num_alignn_layers": 1, "num_gcn_layers": 1},
}


def make_config(model, devices=1, precision="64", graph=None, **recipe):
    settings = {"preset": model, "epochs": 3, "batch_size": 3, "averaging_epochs": 1} | recipe
    return RunConfig.from_dict(
        {
            "model": model,
            "model_options": OPTIONS[model],
            "neighborhood": ({"tol": 1e-2} if model == "crystalformer" else {}) | (graph or {}),
            "device": "cpu",
            "devices": devices,
            "precision": precision,
            "recipe": settings,
        }
    )


def train(config, output, callbacks=(), resume=False, model=None):
    built = build_run_model(config, ["a", "b"], ["", ""])
    model, card = built if model is None else model, built.card
    transform = built.neighborhood(**config.neighborhood)
    graphs = [transform(data) for data in small_crystals()]
    for index, graph in enumerate(graphs):
        graph.y = torch.tensor([[float(index % 4), float("nan") if index % 3 == 0 else index / 2]])
        graph.structure_id = str(index)
    return fit(model, graphs[:7], graphs[7:], config, card, output, callbacks, resume)


def assert_same_run(first, second, tolerance):
    """Equal weights, buffers, averages and histories (but for the times)."""
    a, b = read_checkpoint(first / "last.ckpt"), read_checkpoint(second / "last.ckpt")
    for key in ("state_dict", "averaged_state_dict"):
        for name, value in a[key].items():
            torch.testing.assert_close(b[key][name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)
    for one, two in zip(read_history(first / "history.csv"), read_history(second / "history.csv"), strict=True):
        assert {**two, "seconds": 0} == pytest.approx({**one, "seconds": 0}, rel=10 * tolerance)


@pytest.mark.parametrize(
    ("model", "precision", "tolerance", "recipe"),
    [
        # Seven crystals in batches of three leave one over, which joins the batch before it: four and three.
        ("cgcnn", "32", 1e-5, {}),
        # AdamW and weight decay of a parameter without gradient; biases in front of a batch norm have rounding alone.
        ("alignn", "64", 1e-8, {"weight_decay": 0.1, "lr": 1e-4}),
        ("alignn", "64", 1e-8, {"graph": {"merge_tolerance": 1e-4}, "lr": 1e-4}),
    ],
)
def test_two_processes_train_as_one_does(tmp_path, model, precision, tolerance, recipe):
    config = make_config(model, precision=precision, **recipe)
    train(config, tmp_path / "one")
    threads = torch.get_num_threads()
    result = train(dataclasses.replace(config, devices=2), tmp_path / "two")
    assert result.reason == "finished"
    assert_same_run(tmp_path / "one", tmp_path / "two", tolerance)
    assert not torch.distributed.is_initialized()
    assert multiprocessing.active_children() == []
    assert torch.get_num_threads() == threads


class StopAfter(Callback):
    """Sends a signal to this process after a number of batches."""

    def __init__(self, batches):
        self.left = batches

    def on_batch_end(self, epoch, seconds):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_interrupted_run_of_two_continues_to_the_weights_and_decay_statistics_of_one(tmp_path):
    # Batches by atoms: some have one crystal, which the second process repeats without its targets.
    config = make_config("crystalformer", epochs=2, batch_by="atoms", batch_size=4)
    train(config, tmp_path / "one")
    result = train(dataclasses.replace(config, devices=2), tmp_path / "two", [StopAfter(3)])
    assert (result.reason, result.progress.step) == ("interrupted", 3)
    assert result.progress.epoch == 0
    assert train(dataclasses.replace(config, devices=2), tmp_path / "two", resume=True).reason == "finished"
    assert_same_run(tmp_path / "one", tmp_path / "two", 1e-9)
    weights = read_checkpoint(tmp_path / "two" / "last.ckpt")["state_dict"]
    assert weights["blocks.0.attention.decay.statistics"][0] > 0


class FailsElsewhere(CGCNN):
    """Raises in any process but the first."""

    def forward(self, data, return_embedding=False):
        if multiprocessing.parent_process() is not None:
            raise ValueError("no memory of this")
        return super().forward(data, return_embedding)


def test_failure_of_a_worker_ends_the_run_and_is_named(tmp_path):
    config = make_config("cgcnn", devices=2)
    model = FailsElsewhere(num_targets=2, **OPTIONS["cgcnn"])
    start = time.perf_counter()
    with pytest.raises(WorkerError, match="process 1 of 2 failed: ValueError: no memory of this"):
        train(config, tmp_path, model=model)
    assert time.perf_counter() - start < 100
    assert multiprocessing.active_children() == []
    assert not torch.distributed.is_initialized()


def test_settings_that_several_devices_cannot_have_are_refused():
    for settings, message in (
        ({"compile": True}, "compile, cuda_graphs: expected neither with several devices"),
        ({"device": "cuda:1"}, "device: expected a kind of device"),
        ({"devices": 0}, "devices: expected an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            RunConfig(**{"devices": 2} | settings)


def test_crystals_travel_as_they_are():
    for number in (1, 4):
        crystals = small_crystals()[:number]
        unpacked = PackedCrystals(crystals).crystals()
        assert len(unpacked) == number
        for first, second in zip(crystals, unpacked, strict=True):
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in ("z", "pos", "cell", "pbc"))


def test_process_alone_keeps_its_numbers():
    group, values = Group(None, torch.device("cpu")), torch.tensor([1.0, 2.0])
    assert group.is_first
    assert group.sum(values) is values
    assert group.decide(3) == 3


def test_batch_norm_over_processes_is_that_of_all_their_rows(monkeypatch):
    from torch_geometric_crystal.nn import batch_norm

    monkeypatch.setattr(batch_norm, "_processes", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))  # the other has the same rows
    torch.manual_seed(0)
    rows = torch.randn(5, 3, dtype=torch.float64)
    together, alone = BatchNorm(3).double(), torch.nn.BatchNorm1d(3).double()
    first, twice = rows.clone().requires_grad_(), torch.cat([rows, rows]).requires_grad_()
    weight = torch.randn(5, 3, dtype=torch.float64)
    out, expected = together(first), alone(twice)
    torch.testing.assert_close(out, expected[:5])
    (out * weight).sum().backward()
    (expected * torch.cat([weight, weight])).sum().backward()
    torch.testing.assert_close(first.grad, twice.grad[:5])
    torch.testing.assert_close(together.running_mean, alone.running_mean)
    torch.testing.assert_close(together.running_var, alone.running_var)
    assert together.num_batches_tracked == 1


def test_weighted_batch_norm_over_processes_is_that_of_all_their_rows(monkeypatch):
    from torch_geometric_crystal.nn import batch_norm

    torch.manual_seed(0)
    norm, count = BatchNorm(3).double(), torch.tensor([1, 3, 2])
    alone = BatchNorm(3).double()
    rows = torch.randn(3, 3, dtype=torch.float64)
    twice, factor = torch.cat([rows, rows]).requires_grad_(), torch.randn(3, 3, dtype=torch.float64)
    expected = alone(twice, torch.cat([count, count]))
    (expected * torch.cat([factor, factor])).sum().backward()
    monkeypatch.setattr(batch_norm, "_processes", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))  # the other has the same rows
    first = rows.clone().requires_grad_()
    out = norm(first, count)
    (out * factor).sum().backward()
    torch.testing.assert_close(out, expected[:3])
    torch.testing.assert_close(first.grad, twice.grad[:3])
    torch.testing.assert_close(2 * norm.weight.grad, alone.weight.grad)  # each process has the gradient of its rows
    torch.testing.assert_close(norm.running_var, alone.running_var)


def test_batch_norm_over_processes_of_a_single_row_in_all_uses_the_running_statistics(monkeypatch):
    from torch_geometric_crystal.nn import batch_norm

    monkeypatch.setattr(batch_norm, "_processes", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)  # the other has none
    norm, row = BatchNorm(3), torch.ones(1, 3)
    torch.testing.assert_close(norm(row), row / (1 + norm.eps) ** 0.5)
    assert norm.num_batches_tracked == 0
