import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.nn import Sequential

from torch_geometric_crystal.nn.batch_norm import BatchNorm
from torch_geometric_crystal.nn.conv.edge_gated_conv import EdgeGatedConv
from torch_geometric_crystal.testing import assert_close_relative

CHANNELS, ATOMS, EDGES = 6, 9, 41


def numpy_batch_norm(norm, x, training):
    mean = x.mean(axis=0) if training else norm.running_mean.numpy()
    variance = x.var(axis=0) if training else norm.running_var.numpy()
    return (x - mean) / np.sqrt(variance + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def numpy_layer(conv, x, edge_index, edge_attr, training):
    """The layer from its formula: one edge, then one node at a time."""
    weights, biases = (part.detach().numpy() for part in (conv.lin_node.weight, conv.lin_node.bias))
    of_source, of_target, of_value, of_skip = zip(np.split(weights, 4), np.split(biases, 4), strict=True)
    of_edge = conv.lin_edge.weight.detach().numpy(), conv.lin_edge.bias.detach().numpy()

    def apply(linear, row):
        return linear[0] @ row + linear[1]

    m = np.array(
        [
            apply(of_source, x[j]) + apply(of_target, x[i]) + apply(of_edge, e)
            for j, i, e in zip(*edge_index, edge_attr, strict=True)
        ]
    ).reshape(len(edge_attr), conv.out_channels)
    rows = []
    for i in range(len(x)):
        into = [number for number, target in enumerate(edge_index[1]) if target == i]
        total = sum(sigmoid(m[number]) * apply(of_value, x[edge_index[0][number]]) for number in into)
        gates = sum(sigmoid(m[number]) for number in into)
        rows.append(apply(of_skip, x[i]) + total / (gates + 1e-6))
    nodes = silu(numpy_batch_norm(conv.node_norm, np.array(rows), training))
    edges = silu(numpy_batch_norm(conv.edge_norm, m, training))
    return (x + nodes, edge_attr + edges) if conv.residual else (nodes, edges)


def with_own_statistics(conv):
    """A layer whose norms have taken on statistics and scales of their own."""
    conv = conv.double()
    for norm in (conv.edge_norm, conv.node_norm):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return conv


@pytest.fixture
def conv():
    return with_own_statistics(EdgeGatedConv(CHANNELS, CHANNELS))


@pytest.fixture
def graph():
    x = torch.randn(ATOMS, CHANNELS, dtype=torch.float64)
    edge_index = torch.randint(ATOMS - 1, (2, EDGES))  # the last atom has no edges, some edges are parallel
    edge_index[:, -1] = edge_index[:, 0]
    return x, edge_index, torch.randn(EDGES, CHANNELS, dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_the_layer_is_its_formula(conv, graph, training, dtype, rtol):
    expected = numpy_layer(conv, *(tensor.numpy() for tensor in graph), training)
    x, edge_index, edge_attr = graph
    out = conv.to(dtype).train(training)(x.to(dtype), edge_index, edge_attr.to(dtype))
    for actual, wanted in zip(out, expected, strict=True):
        assert_close_relative(actual, torch.from_numpy(wanted), rtol)


def test_without_residual_the_sizes_are_free(graph):
    conv = with_own_statistics(EdgeGatedConv(CHANNELS, 4, edge_channels=3, residual=False))
    x, edge_index, edge_attr = graph
    out = conv.train()(x, edge_index, edge_attr[:, :3])
    expected = numpy_layer(conv, x.numpy(), edge_index.numpy(), edge_attr[:, :3].numpy(), True)
    assert [tuple(part.shape) for part in out] == [(ATOMS, 4), (EDGES, 4)]
    for actual, wanted in zip(out, expected, strict=True):
        assert_close_relative(actual, torch.from_numpy(wanted), 1e-13)


def test_the_defaults_have_the_size_of_the_authors_layer():
    # Five maps of 256 to 256 with bias, two norms with scale and shift.
    assert sum(p.numel() for p in EdgeGatedConv(256, 256).parameters()) == 5 * (256 * 256 + 256) + 4 * 256


def test_gradients_are_those_of_finite_differences(conv, graph):
    x, edge_index, edge_attr = graph
    conv.eval()
    inputs = (x.requires_grad_(), edge_attr.requires_grad_(), conv.lin_node.weight, conv.lin_edge.weight)
    assert torch.autograd.gradcheck(lambda x, edge_attr, *_: conv(x, edge_index, edge_attr), inputs)


def test_permuted_nodes_and_edges_give_permuted_features(conv, graph):
    x, edge_index, edge_attr = graph
    order, edge_order = torch.randperm(ATOMS), torch.randperm(EDGES)
    conv.eval()
    nodes, edges = conv(x, edge_index, edge_attr)
    permuted = conv(x[order], order.argsort()[edge_index][:, edge_order], edge_attr[edge_order])
    assert_close_relative(permuted[0], nodes[order], 1e-13)
    assert_close_relative(permuted[1], edges[edge_order], 1e-13)


def test_each_of_two_parallel_edges_counts(conv):
    x, edge_attr = torch.randn(3, CHANNELS, dtype=torch.float64), torch.randn(3, CHANNELS, dtype=torch.float64)
    edge_index = torch.tensor([[0, 2, 0], [1, 1, 1]])
    conv.eval()
    twice, _ = conv(x, edge_index, edge_attr)
    once, _ = conv(x, edge_index[:, :2], edge_attr[:2])
    expected, _ = numpy_layer(conv, x.numpy(), edge_index.numpy(), edge_attr.numpy(), False)
    assert_close_relative(twice, torch.from_numpy(expected), 1e-13)
    assert (twice - once)[1].abs().max() > 1e-2


def test_an_edge_index_object_and_sequential_give_the_same(conv, graph):
    x, edge_index, edge_attr = graph
    conv.eval()
    nodes, edges = conv(x, edge_index, edge_attr)
    from_object = conv(x, EdgeIndex(edge_index, sparse_size=(ATOMS, ATOMS)), edge_attr)
    assert torch.equal(from_object[0], nodes)
    assert torch.equal(from_object[1], edges)
    model = Sequential("x, edge_index, edge_attr", [(conv, "x, edge_index, edge_attr -> x, edge_attr")]).eval()
    assert torch.equal(model(x, edge_index, edge_attr)[0], nodes)


@pytest.mark.parametrize("training", [True, False])
def test_without_edges_the_message_is_0(conv, training):
    x = torch.randn(4, CHANNELS, dtype=torch.float64)
    edge_attr = torch.empty(0, CHANNELS, dtype=torch.float64)
    nodes, edges = conv.train(training)(x, torch.empty(2, 0, dtype=torch.long), edge_attr)
    skip = x @ conv.lin_node.weight[3 * CHANNELS :].T + conv.lin_node.bias[3 * CHANNELS :]
    normed = numpy_batch_norm(conv.node_norm, skip.detach().numpy(), training)
    assert_close_relative(nodes, x + torch.from_numpy(silu(normed)), 1e-13)
    assert edges.shape == (0, CHANNELS)


def test_one_node_with_one_edge_in_training_uses_the_running_statistics(conv):
    x, edge_index = torch.randn(1, CHANNELS, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.long)
    edge_attr = torch.randn(1, CHANNELS, dtype=torch.float64)
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    trained = conv.train()(x, edge_index, edge_attr)
    evaluated = conv.eval()(x, edge_index, edge_attr)
    assert all(torch.equal(a, b) for a, b in zip(trained, evaluated, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_reset_draws_new_weights_and_forgets_statistics(conv):
    weights = [conv.lin_node.weight.detach().clone(), conv.lin_edge.bias.detach().clone()]
    conv.reset_parameters()
    assert not torch.equal(conv.lin_node.weight, weights[0])
    assert not torch.equal(conv.lin_edge.bias, weights[1])
    assert isinstance(conv.node_norm, BatchNorm)
    assert torch.equal(conv.node_norm.running_mean, torch.zeros(CHANNELS, dtype=torch.float64))
    assert torch.equal(conv.edge_norm.weight, torch.ones(CHANNELS, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [(6, 4, 6), (6, 6, 5)])
def test_residual_needs_equal_sizes(sizes):
    with pytest.raises(ValueError, match="out_channels: expected with residual=True the size of the nodes' and edges'"):
        EdgeGatedConv(*sizes)


def test_repr():
    assert repr(EdgeGatedConv(64, 64)) == "EdgeGatedConv(64, 64, edge_channels=64, residual=True)"
    small = EdgeGatedConv(8, 16, edge_channels=4, residual=False)
    assert repr(small) == "EdgeGatedConv(8, 16, edge_channels=4, residual=False)"
