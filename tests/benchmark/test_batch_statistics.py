import dataclasses

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from torch_geometric_crystal.benchmark.batch_statistics import batch_statistics, moving_batch_norms
from torch_geometric_crystal.benchmark.batching import crystal_loader
from torch_geometric_crystal.benchmark.checkpoint import load_model, read_checkpoint
from torch_geometric_crystal.benchmark.run import train_and_evaluate
from torch_geometric_crystal.nn.batch_norm import BatchNorm


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4))


def test_statistics_are_those_of_torchs_own_pass():
    batches = [torch.randn(6, 3) for _ in range(5)]
    model, other = network(), network()
    other[2].p = 0.0  # this pass has no dropout
    update_bn(batches, other)
    found = batch_statistics(model, other.state_dict(), batches, model)
    assert set(found) == {f"{layer}.running_{kind}" for layer in (1, 4) for kind in ("mean", "var")}
    for name, value in found.items():
        torch.testing.assert_close(value, other.state_dict()[name])


def test_the_model_is_left_as_it_was():
    model = network()
    model[4].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = network().state_dict() | {"0.bias": torch.ones(4)}
    found = batch_statistics(model, weights, [torch.randn(6, 3)], model)
    assert set(found) == {"1.running_mean", "1.running_var"}  # the other one is frozen
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, True, True, False]
    assert model[1].momentum == 0.1


def test_a_norm_that_meets_no_batch_keeps_its_statistics():
    model = network()
    assert batch_statistics(model, model.state_dict(), [torch.randn(1, 3)], lambda batch: model[:3](batch)) == {}
    assert set(moving_batch_norms(model)) == {"1", "4"}


def test_averaged_weights_have_statistics_of_their_own(make_config, parts, tmp_path):
    train_and_evaluate(make_config(), parts, tmp_path)
    model = load_model(tmp_path, "averaged")
    loader = crystal_loader(parts.parts["train"], 8, shuffle=True, seed=0)
    loader.batch_sampler.set_epoch(5, 0)
    expected = batch_statistics(model.train(), model.state_dict(), loader, model)
    assert set(expected) == {"norm.running_mean", "norm.running_var"}
    last = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    for name, value in expected.items():
        torch.testing.assert_close(model.state_dict()[name], value)
        assert not torch.allclose(last[name], value)


def test_an_ended_run_of_an_earlier_version_gets_them_on_resuming(make_config, parts, tmp_path):
    whole = train_and_evaluate(make_config(), parts, tmp_path / "whole").model
    content = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    (tmp_path / "old").mkdir()
    del content["training"]["average"]["is_settled"]
    for name, value in content["training"]["average"]["mean"].items():
        if "running" in name:
            value.add_(1.0)
    torch.save(content, tmp_path / "old" / "last.ckpt")
    again = train_and_evaluate(make_config(), parts, tmp_path / "old", resume=True).model
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())


def test_several_processes_find_the_same_statistics(make_config, parts, tmp_path):
    models = []
    for devices in (1, 2):
        config = dataclasses.replace(make_config(epochs=1, averaging_epochs=1), model="cgcnn", devices=devices)
        models.append(train_and_evaluate(config, parts, tmp_path / str(devices)).model)
    for name, value in models[0].state_dict().items():
        if "running_var" in name:  # the mean moves with a bias before the norm, which has no gradient but rounding
            torch.testing.assert_close(models[1].state_dict()[name], value, rtol=1e-3, atol=1e-4)
