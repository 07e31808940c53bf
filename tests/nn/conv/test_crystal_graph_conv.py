import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn import Sequential

from torch_geometric_crystal.nn.conv.crystal_graph_conv import CrystalGraphConv
from torch_geometric_crystal.testing import assert_close_relative

CHANNELS, EDGE_CHANNELS, ATOMS, EDGES = 7, 5, 9, 41


def numpy_batch_norm(norm, x, training):
    mean = x.mean(axis=0) if training else norm.running_mean.numpy()
    variance = x.var(axis=0) if training else norm.running_var.numpy()
    return (x - mean) / np.sqrt(variance + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def numpy_layer(conv, x, edge_index, edge_attr, training):
    """The layer from its formula: the concatenation of each edge in turn, then gates, sums and softplus."""
    weight, bias = conv.lin.weight.detach().numpy(), conv.lin.bias.detach().numpy()
    rows = [weight @ np.concatenate([x[i], x[j], e]) + bias for j, i, e in zip(*edge_index, edge_attr, strict=True)]
    gated = numpy_batch_norm(conv.edge_norm, np.array(rows), training)
    gate, value = gated[:, : len(x[0])], gated[:, len(x[0]) :]
    message = np.zeros_like(x)
    for i, row in zip(edge_index[1], 1 / (1 + np.exp(-gate)) * np.log1p(np.exp(value)), strict=True):
        message[i] += row
    return np.log1p(np.exp(x + numpy_batch_norm(conv.node_norm, message, training)))


@pytest.fixture
def conv():
    """A layer whose norms have taken on statistics and scales of their own."""
    conv = CrystalGraphConv(CHANNELS, EDGE_CHANNELS).double()
    for norm in (conv.edge_norm, conv.node_norm):
        for parameter in (norm.weight.data, norm.bias.data, norm.running_mean):
            parameter.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return conv


@pytest.fixture
def graph():
    x = torch.randn(ATOMS, CHANNELS, dtype=torch.float64)
    edge_index = torch.randint(ATOMS - 1, (2, EDGES))  # the last atom has no edges, some edges are parallel
    return x, edge_index, torch.randn(EDGES, EDGE_CHANNELS, dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_layer_is_its_formula(conv, graph, training, dtype, rtol):
    expected = numpy_layer(conv, *(tensor.numpy() for tensor in graph), training)
    x, edge_index, edge_attr = graph
    out = conv.to(dtype).train(training)(x.to(dtype), edge_index, edge_attr.to(dtype))
    assert_close_relative(out, torch.from_numpy(expected), rtol)


def test_gradients_are_those_of_finite_differences(conv, graph):
    x, edge_index, edge_attr = graph
    conv.eval()
    inputs = (x.requires_grad_(), edge_attr.requires_grad_(), conv.lin.weight)
    assert torch.autograd.gradcheck(lambda x, edge_attr, _: conv(x, edge_index, edge_attr), inputs)


def test_permuted_atoms_give_permuted_features(conv, graph):
    x, edge_index, edge_attr = graph
    order = torch.randperm(ATOMS)
    place = order.argsort()
    conv.eval()
    permuted = conv(x[order], place[edge_index], edge_attr)
    assert_close_relative(permuted, conv(x, edge_index, edge_attr)[order], 1e-12)


def test_an_edge_index_object_and_sequential_give_the_same(conv, graph):
    x, edge_index, edge_attr = graph
    conv.eval()
    expected = conv(x, edge_index, edge_attr)
    assert torch.equal(conv(x, EdgeIndex(edge_index, sparse_size=(ATOMS, ATOMS)), edge_attr), expected)
    model = Sequential("x, edge_index, edge_attr", [(conv, "x, edge_index, edge_attr -> x")]).eval()
    assert torch.equal(model(x, edge_index, edge_attr), expected)


@pytest.mark.parametrize("training", [True, False])
def test_without_edges_only_the_norm_of_the_message_acts(conv, training):
    x = torch.randn(4, CHANNELS, dtype=torch.float64)
    nothing = torch.empty(2, 0, dtype=torch.long), torch.empty(0, EDGE_CHANNELS, dtype=torch.float64)
    before = conv.edge_norm.running_mean.clone()
    out = conv.train(training)(x, *nothing)
    shift = numpy_batch_norm(conv.node_norm, np.zeros((4, CHANNELS)), training)
    if training:  # the forward pass has moved the running statistics, but used those of the batch
        np.testing.assert_allclose(shift, np.tile(conv.node_norm.bias.detach(), (4, 1)))
    assert_close_relative(out, torch.nn.functional.softplus(x + torch.from_numpy(shift)), 1e-12)
    assert torch.equal(conv.edge_norm.running_mean, before)


def test_one_atom_with_one_edge_in_training_uses_the_running_statistics(conv):
    x, edge_index = torch.randn(1, CHANNELS, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.long)
    edge_attr = torch.randn(1, EDGE_CHANNELS, dtype=torch.float64)
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    trained = conv.train()(x, edge_index, edge_attr)
    assert torch.equal(trained, conv.eval()(x, edge_index, edge_attr))
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_reset_draws_new_weights_and_forgets_statistics(conv):
    weight = conv.lin.weight.detach().clone()
    conv.reset_parameters()
    assert not torch.equal(conv.lin.weight, weight)
    assert torch.equal(conv.node_norm.running_mean, torch.zeros(CHANNELS, dtype=torch.float64))
    assert torch.equal(conv.edge_norm.weight, torch.ones(2 * CHANNELS, dtype=torch.float64))


def test_repr():
    assert repr(CrystalGraphConv(64, 41)) == "CrystalGraphConv(64, edge_channels=41)"
