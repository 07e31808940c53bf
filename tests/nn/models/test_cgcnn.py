import json

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.nn.models.cgcnn import CGCNN
from torch_geometric_crystal.testing import (
    assert_all_invariances,
    assert_close_relative,
    crystal_outputs,
    small_crystals,
)
from torch_geometric_crystal.transforms import PeriodicKNNGraph


def softplus(x):
    return np.log1p(np.exp(x))


def linear(module, x):
    return x @ module.weight.detach().numpy().T + module.bias.detach().numpy()


def batch_norm(norm, x, training):
    mean = x.mean(axis=0) if training else norm.running_mean.numpy()
    variance = x.var(axis=0) if training else norm.running_var.numpy()
    return (x - mean) / np.sqrt(variance + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def numpy_cgcnn(model, crystals, training):
    """The whole model from its definition; edge by edge, crystal by crystal."""
    batch = Batch.from_data_list(crystals)
    source, target = batch.edge_index.numpy()
    table = model.element_features.numpy()
    x = linear(model.atom_embedding, np.stack([table[z - 1] for z in batch.z.tolist()]))
    centers = np.linspace(0.0, 8.0, 41)
    edges = np.exp(-((batch.edge_dist.numpy()[:, None] - centers) ** 2) / 0.2**2)
    for conv in model.convs:
        gated = batch_norm(conv.edge_norm, linear(conv.lin, np.hstack([x[target], x[source], edges])), training)
        gate, value = np.split(gated, 2, axis=1)
        message = np.zeros_like(x)
        np.add.at(message, target, softplus(value) / (1.0 + np.exp(-gate)))
        x = softplus(x + batch_norm(conv.node_norm, message, training))
    pooled = np.stack([x[batch.batch.numpy() == crystal].mean(axis=0) for crystal in range(len(crystals))])
    hidden = softplus(linear(model.hidden, softplus(pooled)))
    out = linear(model.out, hidden)
    return out * model.normalization.std.numpy() + model.normalization.mean.numpy(), hidden


@pytest.fixture
def model():
    """A model in float64 whose norms and normalisation are not those of the start."""
    model = CGCNN(num_targets=2).double()
    for conv in model.convs:
        for norm in (conv.edge_norm, conv.node_norm):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(std=0.3)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    model.normalization.fit(torch.tensor([[1.0, -5.0], [2.0, 15.0]]))
    return model


def graphs(model, dtype=torch.float64, **kwargs):
    transform = model.neighborhood(**kwargs)
    return [transform(data) for data in small_crystals(dtype)]


def test_the_default_model_has_the_published_size():
    assert sum(parameter.numel() for parameter in CGCNN().parameters()) == 80_833


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_the_model_is_its_definition(model, training, dtype, rtol):
    crystals = graphs(model)
    expected_out, expected_hidden = numpy_cgcnn(model, crystals, training)
    batch = Batch.from_data_list(graphs(model, dtype))
    out, hidden = model.to(dtype).train(training)(batch, return_embedding=True)
    assert_close_relative(hidden, torch.from_numpy(expected_hidden), rtol)
    assert_close_relative(out, torch.from_numpy(expected_out), 3 * rtol)


def test_the_output_does_not_depend_on_how_a_crystal_is_described(model):
    shells = model.neighborhood(ties="shell")
    assert_all_invariances(model, small_crystals(torch.float64), rtol=1e-9, neighborhood=shells)


def test_the_default_neighborhood_is_the_authors_graph(model):
    transform = model.neighborhood()
    assert isinstance(transform, PeriodicKNNGraph)
    for data in graphs(model):
        assert torch.bincount(data.edge_index[1]).tolist() == [12] * data.num_nodes
        assert data.edge_dist.max() <= 8.0


def test_a_sparse_crystal_has_fewer_edges_and_no_invented_ones(model):
    sparse = small_crystals(torch.float64)[0]
    sparse.pos, sparse.cell = 1.9 * sparse.pos, 1.9 * sparse.cell  # six neighbours at 5.4 A, twelve at 7.6, none to 9.3
    assert model.neighborhood(k=20)(sparse).num_edges == 2 * 18


def test_a_batch_made_by_hand_needs_no_pointers(model):
    transform = model.neighborhood()
    batch = Batch.from_data_list([transform(data) for data in small_crystals()[:2]])
    by_hand = Data(**{name: value for name, value in batch.to_dict().items() if name != "ptr"})
    torch.testing.assert_close(model.eval()(by_hand), model(batch))


def test_one_crystal_needs_no_batch(model):
    data = graphs(model)[0]
    model.eval()
    assert_close_relative(model(data), model(Batch.from_data_list([data])), 1e-14)


@pytest.mark.parametrize("training", [True, False])
def test_crystals_without_edges_have_finite_outputs(model, training):
    lone = small_crystals(torch.float64)[4]
    lone.pbc = torch.zeros(1, 3, dtype=torch.bool)
    lone = model.neighborhood()(lone)
    assert lone.num_edges == 0
    model.train(training)
    assert model(Batch.from_data_list([lone])).isfinite().all()
    assert model(Batch.from_data_list([lone, *graphs(model)])).isfinite().all()
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_an_isolated_atom_leaves_the_other_crystals_alone(model):
    lone = small_crystals(torch.float64)[4]
    lone.pbc = torch.zeros(1, 3, dtype=torch.bool)
    nacl = small_crystals(torch.float64)[0]
    together = crystal_outputs(model, [lone, nacl])
    assert_close_relative(together[1:], crystal_outputs(model, [nacl]), 1e-12)


def test_one_crystal_can_be_trained_on(model):
    model.train()(Batch.from_data_list(graphs(model)[:1])).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_forces_are_those_of_finite_differences(model):
    data = graphs(model)[-1]
    model.eval()
    data.pos.requires_grad_()
    (gradient,) = torch.autograd.grad(model(data)[0, 0], data.pos)
    direction = torch.randn_like(data.pos)

    def moved(step):
        changed = data.clone()
        changed.pos = (data.pos + step * direction).detach().requires_grad_()
        return model(changed)[0, 0].item()

    step = 1e-5
    assert abs((moved(step) - moved(-step)) / (2 * step) - (gradient * direction).sum().item()) < 1e-7


def test_training_lowers_the_error():
    model = CGCNN()
    batch = Batch.from_data_list(graphs(model, torch.float32))
    y = torch.linspace(-2.0, 3.0, batch.num_graphs).unsqueeze(-1)
    model.normalization.fit(y)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    errors = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(batch) - y).abs().mean()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.2 * errors[0]


def test_the_config_makes_the_same_architecture(model):
    again = CGCNN(**json.loads(json.dumps(model.config()))).double()
    again.load_state_dict(model.state_dict())
    assert again.config() == model.config()
    crystals = small_crystals(torch.float64)
    assert torch.equal(crystal_outputs(again, crystals), crystal_outputs(model, crystals))


def test_other_sizes_are_kept_in_the_config():
    model = CGCNN(3, channels=16, num_layers=2, hidden_channels=8, num_neighbors=6, cutoff=5.0, edge_step=0.5)
    crystals = small_crystals()
    assert crystal_outputs(model, crystals).shape == (len(crystals), 3)
    assert crystal_outputs(CGCNN(**model.config()), crystals).shape == (len(crystals), 3)
    assert model.neighborhood().k == 6
    assert model.neighborhood().cutoff == 5.0


def test_reset_draws_new_weights_and_keeps_the_normalisation(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_parameters()
    after = model.state_dict()
    for name in ("atom_embedding.weight", "convs.1.lin.weight", "hidden.bias", "out.weight", "convs.0.node_norm.bias"):
        assert not torch.equal(after[name], before[name])
    for name in ("normalization.mean", "normalization.std", "element_features"):
        assert torch.equal(after[name], before[name])


def test_a_batch_without_a_graph_is_refused_with_the_remedy(model):
    with pytest.raises(ValueError, match=r"Apply model\.neighborhood\(\) first"):
        model(Batch.from_data_list(small_crystals(torch.float64)))


@pytest.mark.parametrize("z", [0, 119])
def test_an_element_that_does_not_exist_is_refused(model, z):
    data = graphs(model)[0]
    data.z = torch.full_like(data.z, z)
    with pytest.raises(IndexError):
        model(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers: expected at least 1"),
        ({"cutoff": 0.0}, "cutoff: expected a positive distance"),
        ({"edge_step": 9.0}, "edge_step: expected a positive distance, at most the cutoff"),
        ({"num_targets": 0}, "num_targets: expected at least 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        CGCNN(**arguments)


def test_repr():
    assert repr(CGCNN()) == (
        "CGCNN(num_targets=1, channels=64, num_layers=3, hidden_channels=128, "
        "num_neighbors=12, cutoff=8.0, edge_step=0.2, level='crystal')"
    )
