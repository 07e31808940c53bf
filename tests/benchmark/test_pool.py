"""Predictions of several processes are those of one, in the same order."""

import pytest
import torch

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.pool import PredictionPool
from torch_geometric_crystal.benchmark.prediction import predict
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.testing import small_crystals

OPTIONS = {"channels": 8, "num_layers": 1, "hidden_channels": 8}


def make_model(**settings):
    model = build_run_model(RunConfig(model="cgcnn", model_options=OPTIONS, **settings), ["a"], [""]).eval()
    graphs = [model.neighborhood()(data) for data in small_crystals()]
    for index, graph in enumerate(graphs):
        graph.structure_id = f"crystal {index}"
        graph.y = torch.full((graph.num_nodes if settings else 1, 1), float(index))
    return model, graphs


def test_two_processes_predict_as_one_does_in_the_same_order():
    model, graphs = make_model(level="atom")
    expected = predict(model, graphs, 3, device="cpu", embedding=True)
    with PredictionPool(model, 2, "cpu") as pool:
        result = pool.predict(graphs, 3, embedding=True)
        alone = pool.predict(graphs[4:5])
    assert result.ids == expected.ids == [f"crystal {index}" for index in range(len(graphs))]
    assert alone.ids == ["crystal 4"]
    assert torch.equal(result.target, expected.target)
    for name in ("prediction", "embedding"):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name))
    assert all(torch.equal(a, b) for a, b in zip(result.atoms, expected.atoms, strict=True))


def test_settings_are_checked():
    model, _ = make_model()
    with pytest.raises(ValueError, match="devices: expected an integer of at least 1"):
        PredictionPool(model, 0)
    with pytest.raises(ValueError, match="device: expected a kind of device"):
        PredictionPool(model, 2, "cpu:0")
