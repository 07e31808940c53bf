"""The layer as a PyG layer: shapes, both paths, other models around it, its door."""

import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import CGConv, GPSConv, Sequential, global_mean_pool

from torch_geometric_crystal.nn import PeriodicInfiniteAttention
from torch_geometric_crystal.ops import gather_wave_vectors, use_backend
from torch_geometric_crystal.testing import assert_close_relative, small_crystals
from torch_geometric_crystal.transforms import InfiniteNeighborhood


@pytest.fixture(scope="module")
def batch():
    transform = InfiniteNeighborhood(tol=1e-2, reciprocal_sigma_min=1.55)
    return Batch.from_data_list([transform(data) for data in small_crystals()[:4]])


@pytest.fixture(scope="module")
def waves(batch):
    return gather_wave_vectors(batch.pos, batch.cell, batch.wave_vector, batch.num_wave_vectors, batch.ptr)


@pytest.fixture
def x(batch):
    return torch.randn(batch.num_nodes, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("domain", ["real", "reciprocal", "multihead"])
@pytest.mark.parametrize("num_basis", [0, 8])
def test_layer_has_the_shapes_and_repr_of_its_settings(batch, waves, x, domain, num_basis):
    conv = PeriodicInfiniteAttention(16, 24, heads=4, num_basis=num_basis, domain=domain)
    kept = 0 if domain == "reciprocal" else num_basis
    assert str(conv) == f"PeriodicInfiniteAttention(16, 24, heads=4, num_basis={kept}, domain={domain!r})"
    out = conv(x, batch.edge_index, batch.edge_dist, waves)
    assert out.shape == (batch.num_nodes, 24)
    out.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in conv.parameters())


@pytest.mark.parametrize("domain", ["real", "multihead"])
@pytest.mark.parametrize("num_basis", [0, 8])
def test_unfused_message_path_equals_the_fused_one(batch, waves, x, domain, num_basis):
    conv = PeriodicInfiniteAttention(16, 24, heads=4, num_basis=num_basis, domain=domain).double()
    double_waves = waves._replace(pos=waves.pos.double(), vector=waves.vector.double())
    fused = conv(x.double(), batch.edge_index, batch.edge_dist, double_waves)
    unfused, (edge_index, weights) = conv(
        x.double(), batch.edge_index, batch.edge_dist, double_waves, return_attention_weights=True
    )
    assert_close_relative(unfused, fused, rtol=1e-12)
    assert weights.shape == (batch.num_edges, conv.real_heads)
    rows = torch.zeros(batch.num_nodes, conv.real_heads, dtype=torch.float64).index_add(0, edge_index[1], weights)
    assert_close_relative(rows, torch.ones_like(rows), rtol=1e-12)


def test_reference_backend_gives_the_same_layer(batch, x):
    conv = PeriodicInfiniteAttention(16, 24, heads=4, num_basis=8)
    fast = conv(x, batch.edge_index, batch.edge_dist)
    with use_backend("reference"):
        plain = conv(x, batch.edge_index, batch.edge_dist)
    assert_close_relative(fast, plain, rtol=1e-5)


def test_edge_index_object_is_taken_as_a_tensor_is(batch, x):
    conv = PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8)
    size = (batch.num_nodes, batch.num_nodes)
    as_object = EdgeIndex(batch.edge_index, sparse_size=size, sort_order="col")
    assert torch.equal(conv(x, as_object, batch.edge_dist), conv(x, batch.edge_index, batch.edge_dist))


def test_layer_works_in_sequential_and_beside_cgconv_and_in_gps(batch, x):
    mixed = Sequential(
        "x, edge_index, edge_dist, edge_attr, batch",
        [
            (PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8), "x, edge_index, edge_dist -> x"),
            nn.ReLU(),
            (CGConv(16, dim=1), "x, edge_index, edge_attr -> x"),
            (global_mean_pool, "x, batch -> x"),
        ],
    )
    out = mixed(x, batch.edge_index, batch.edge_dist, batch.edge_dist.unsqueeze(1), batch.batch)
    assert out.shape == (4, 16)
    gps = GPSConv(16, PeriodicInfiniteAttention(16, 16, heads=4, num_basis=8), heads=2)
    assert gps(x, batch.edge_index, batch.batch, edge_dist=batch.edge_dist).shape == x.shape


def test_explainer_masks_reach_the_messages(batch, x):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8)
            self.out = nn.Linear(16, 1)

        def forward(self, x, edge_index, edge_dist, batch):
            return self.out(global_mean_pool(self.conv(x, edge_index, edge_dist), batch))

    torch.manual_seed(0)
    explainer = Explainer(
        Model(),
        algorithm=GNNExplainer(epochs=5),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
    )
    explanation = explainer(x, batch.edge_index, edge_dist=batch.edge_dist, batch=batch.batch)
    assert explanation.edge_mask.shape == (batch.num_edges,)
    assert explanation.edge_mask.std() > 0


def test_half_precision_states_are_summed_in_float32(batch, x):
    conv = PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8)
    expected = conv(x, batch.edge_index, batch.edge_dist)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x, batch.edge_index, batch.edge_dist)
    assert_close_relative(out.float(), expected, rtol=3e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("domain", ["real", "multihead"])
def test_a_layer_in_half_precision_is_near_one_in_single(batch, waves, x, domain, dtype):
    conv = PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8, domain=domain)
    expected = conv(x, batch.edge_index, batch.edge_dist, waves)
    conv, inputs = conv.to(dtype), (x.to(dtype), batch.edge_index, batch.edge_dist, waves)
    for out in (conv(*inputs), conv(*inputs, return_attention_weights=True)[0]):
        assert out.dtype == dtype
        assert_close_relative(out.float(), expected, rtol=3e-2)


def test_layers_stack_under_autocast(batch, x):
    conv = PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8)
    graph = (batch.edge_index, batch.edge_dist)
    expected = conv(conv(x, *graph), *graph)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(conv(x, *graph), *graph)
    assert_close_relative(out.float(), expected, rtol=5e-2)


def test_zero_edges_give_the_output_bias():
    conv = PeriodicInfiniteAttention(16, 16, heads=2, num_basis=8)
    nn.init.normal_(conv.out.bias)
    out = conv(torch.randn(3, 16), torch.zeros(2, 0, dtype=torch.long), torch.zeros(0))
    assert (out == conv.out.bias).all()


def test_reset_parameters_scales_values_and_output_by_the_gain():
    conv = PeriodicInfiniteAttention(64, 64, heads=4, num_basis=16)
    spread = {}
    for gain in (1.0, 0.25):
        torch.manual_seed(0)
        conv.reset_parameters(gain)
        query, key, value = conv.qkv.weight.chunk(3)
        spread[gain] = [float(w.detach().std()) for w in (query, key, value, conv.out.weight)]
    ratio = [small / large for small, large in zip(spread[0.25], spread[1.0], strict=True)]
    assert ratio == pytest.approx([1.0, 1.0, 0.25, 0.25], rel=1e-4)
    limit = (6 / (64 + 16)) ** 0.5 * 16**-0.5
    assert conv.value_encoding.abs().max() <= limit
    assert conv.value_encoding.abs().max() > 0.95 * limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_channels": 20, "heads": 8}, r"out_channels: expected a multiple of heads, 8, received 20"),
        ({"domain": "both"}, r"domain: expected one of 'real', 'reciprocal', 'multihead'"),
        ({"heads": 3, "out_channels": 24, "domain": "multihead"}, r"heads: expected an even number"),
        ({"rho_min": 1.0}, r"rho_min: expected bounds between 0 and 1"),
        ({"num_basis": -1}, r"num_basis: expected zero or a positive number"),
        ({"r0": 0.0}, r"r0: expected positive lengths"),
        ({"basis_range": 0.0}, r"basis_range: expected a positive length in A"),
        ({"elu_beta": 0.0}, r"elu_beta: expected a positive number"),
        ({"aggr": "mean"}, r"aggr: expected one of 'add', 'sum', received 'mean'"),
        ({"flow": "target_to_source"}, r"flow: expected one of 'source_to_target'"),
    ],
)
def test_constructor_refuses_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        PeriodicInfiniteAttention(**{"in_channels": 16, "out_channels": 16} | arguments)


def test_missing_edges_or_waves_are_named(batch, x):
    with pytest.raises(ValueError, match="edge_index, edge_dist: expected edges"):
        PeriodicInfiniteAttention(16, 16)(x)
    with pytest.raises(ValueError, match="waves: expected wave vectors"):
        PeriodicInfiniteAttention(16, 16, domain="multihead")(x, batch.edge_index, batch.edge_dist)


def test_waves_have_no_weights_to_return(waves, x):
    with pytest.raises(ValueError, match="return_attention_weights: expected False in reciprocal space"):
        PeriodicInfiniteAttention(16, 16, domain="reciprocal")(x, waves=waves, return_attention_weights=True)
