"""Every backend of infinite attention against the reference, and the reference against its own gradients."""

import pytest
import torch

from torch_geometric_crystal.ops import GaussianBasis, group_edges, infinite_attention, prepare_row_blocks, use_backend
from torch_geometric_crystal.ops.infinite_attention import row_blocks as row_blocks_module
from torch_geometric_crystal.ops.infinite_attention.registered import (
    infinite_attention_backward_op,
    infinite_attention_op,
)
from torch_geometric_crystal.ops.infinite_attention.row_blocks import flatten_blocks, row_blocks

HEADS, HEAD_DIM, NUM_BASIS = 3, 5, 7


def random_edges(num_nodes, num_edges, seed=0, dtype=torch.float64):
    """A multigraph with parallel edges, a row without edges (the last atom) and a self edge at zero distance."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(num_nodes, (num_edges,), generator=generator)
    target = torch.randint(num_nodes - 1, (num_edges,), generator=generator).sort().values
    dist = torch.rand(num_edges, generator=generator, dtype=dtype) * 5 + 0.5
    source[0], target[0], dist[0] = 0, 0, 0.0
    return torch.stack([source, target]), dist


def random_inputs(num_nodes, dtype=torch.float64, seed=0, heads=HEADS, head_dim=HEAD_DIM, num_basis=NUM_BASIS):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    query, key, value = (draw(num_nodes, heads, head_dim).requires_grad_() for _ in range(3))
    rho = (torch.rand(num_nodes, heads, generator=generator, dtype=dtype) + 0.55).requires_grad_()
    encoding = draw(heads, head_dim, num_basis).requires_grad_()
    return query, key, value, rho, encoding


def attend(inputs, edge_index, dist, encoded=True, **options):
    query, key, value, rho, encoding = inputs
    basis = GaussianBasis(encoding.size(-1), 14.0 / encoding.size(-1)) if encoded else None
    return infinite_attention(
        query, key, value, rho, group_edges(edge_index, dist, query.size(0)),
        value_encoding=encoding if encoded else None, basis=basis, **options,
    )  # fmt: skip


@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "plain"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=["float64", "float32"]
)
def test_blocked_agrees_with_reference_in_output_and_every_gradient(encoded, dtype, tolerance):
    edge_index, dist = random_edges(23, 411, dtype=dtype)
    inputs = random_inputs(23, dtype)
    dist.requires_grad_()
    results = {}
    for backend in ("blocked", "reference"):
        out, lse = attend(inputs, edge_index, dist, encoded, backend=backend)
        weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
        loss = (out * weights).sum() + lse[:-1].square().sum()
        used = [*inputs[:4], dist] + ([inputs[4]] if encoded else [])
        results[backend] = [out, lse[:-1], *torch.autograd.grad(loss, used)]
    for fast, plain in zip(results["blocked"], results["reference"], strict=True):
        assert (fast - plain).abs().max() <= tolerance * plain.abs().max()


@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "plain"])
def test_blocked_gradients_pass_gradcheck_twice(encoded):
    edge_index, dist = random_edges(4, 15)
    inputs = random_inputs(4, heads=2, head_dim=2, num_basis=3)
    dist.requires_grad_()

    def outputs(query, key, value, rho, dist, encoding):
        out, lse = attend((query, key, value, rho, encoding), edge_index, dist, encoded, backend="blocked")
        return out, lse[:-1]

    arguments = (*inputs[:4], dist, inputs[4] if encoded else inputs[4].detach())
    assert torch.autograd.gradcheck(outputs, arguments, atol=1e-7)
    assert torch.autograd.gradgradcheck(outputs, arguments, atol=1e-6)


def test_blocked_second_derivatives_ignore_the_basis_cache():
    edge_index, dist = random_edges(6, 40)
    inputs = random_inputs(6)
    dist.requires_grad_()
    prepared = prepare_row_blocks(group_edges(edge_index, dist, 6), GaussianBasis(NUM_BASIS, 14.0 / NUM_BASIS))
    assert all(block.basis_values is not None for block in prepared)
    second = []
    for blocks in (None, prepared):
        out, _ = attend(inputs, edge_index, dist, blocks=blocks, backend="blocked")
        (force,) = torch.autograd.grad(out.square().sum(), dist, create_graph=True)
        second.append(torch.autograd.grad(force.square().sum(), [dist, *inputs]))
    for without, with_cache in zip(*second, strict=True):
        torch.testing.assert_close(with_cache, without, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("slots", [1, 40, 10_000], ids=["row by row", "several blocks", "one block"])
@pytest.mark.parametrize("dense_sources", [1, 4096], ids=["compacted sources", "source range"])
def test_blocked_result_does_not_depend_on_the_blocks(monkeypatch, slots, dense_sources):
    edge_index, dist = random_edges(31, 500)
    inputs = random_inputs(31)
    expected, _ = attend(inputs, edge_index, dist, backend="reference")
    monkeypatch.setattr(row_blocks_module, "SLOTS_PER_BLOCK", slots)
    monkeypatch.setattr(row_blocks_module, "DENSE_SOURCES", dense_sources)
    blocks = list(row_blocks(group_edges(edge_index, dist, 31)))
    assert len(blocks) == {1: 30, 40: len(blocks), 10_000: 1}[slots]
    out, _ = attend(inputs, edge_index, dist, backend="blocked")
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_blocks_prepared_for_several_layers_change_nothing(monkeypatch):
    edge_index, dist = random_edges(31, 500, dtype=torch.float32)
    inputs = random_inputs(31, torch.float32)
    monkeypatch.setattr(row_blocks_module, "SLOTS_PER_BLOCK", 100)
    monkeypatch.setattr(row_blocks_module, "PREPARED_BYTES", 9000)
    prepared = prepare_row_blocks(group_edges(edge_index, dist, 31), GaussianBasis(NUM_BASIS, 14.0 / NUM_BASIS))
    assert {block.basis_values is None for block in prepared} == {True, False}
    runs = []
    for blocks in (None, prepared):
        out, _ = attend(inputs, edge_index, dist, blocks=blocks, backend="blocked")
        runs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    assert all(torch.equal(without, with_blocks) for without, with_blocks in zip(*runs, strict=True))


def test_blocked_is_repeatable_bit_for_bit():
    edge_index, dist = random_edges(50, 3000, dtype=torch.float32)
    runs = []
    for _ in range(2):
        inputs = random_inputs(50, torch.float32)
        out, _ = attend(inputs, edge_index, dist, backend="blocked")
        runs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_edges_in_any_order_give_the_same_result():
    edge_index, dist = random_edges(12, 90)
    inputs = random_inputs(12)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    expected, _ = attend(inputs, edge_index, dist)
    shuffled, _ = attend(inputs, edge_index[:, order], dist[order])
    torch.testing.assert_close(shuffled, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_row_without_edges_gives_zero_output_and_no_gradient(backend):
    edge_index, dist = random_edges(9, 60)
    inputs = random_inputs(9)
    out, lse = attend(inputs, edge_index, dist, backend=backend)
    assert (out[-1] == 0).all()
    assert (lse[-1] == -torch.inf).all()
    grads = torch.autograd.grad(out.sum(), inputs)
    assert (grads[0][-1] == 0).all()
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_graph_without_edges_gives_zeros(backend):
    inputs = random_inputs(3)
    out, _ = attend(inputs, torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.float64), backend=backend)
    assert out.shape == (3, HEADS, HEAD_DIM)
    assert (out == 0).all()


def test_long_rows_beside_short_ones_agree_with_reference():
    """One row of 20,000 images, the others of three."""
    source = torch.arange(20_012) % 5
    target = torch.cat([torch.zeros(20_000, dtype=torch.long), torch.arange(1, 5).repeat_interleave(3)])
    dist = torch.rand(20_012, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 12
    inputs = random_inputs(5)
    out, _ = attend(inputs, torch.stack([source, target]), dist, backend="blocked")
    expected, _ = attend(inputs, torch.stack([source, target]), dist, backend="reference")
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_operators_pass_opcheck():
    edge_index, dist = random_edges(6, 30)
    query, key, value, rho, encoding = random_inputs(6)
    dist.requires_grad_()
    neighborhood = group_edges(edge_index, dist, 6)
    blocks = flatten_blocks(prepare_row_blocks(neighborhood, GaussianBasis(NUM_BASIS, 2.0)))
    groups = list(neighborhood[1:])
    settings = ("blocked", 1.4, 0.5, NUM_BASIS, 2.0)
    arguments = (query, key, value, rho, dist, encoding, groups, blocks, *settings)
    torch.library.opcheck(infinite_attention_op, arguments)
    outputs = infinite_attention_op(*(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments))
    torch.library.opcheck(
        infinite_attention_backward_op,
        tuple(
            a.detach() if isinstance(a, torch.Tensor) else a
            for a in (*outputs, query, key, value, rho, dist, encoding, groups, blocks, *outputs, *settings, True)
        ),
    )


def test_context_manager_chooses_the_backend():
    edge_index, dist = random_edges(6, 30, dtype=torch.float32)
    inputs = random_inputs(6, torch.float32)
    with use_backend("reference"):
        inside, _ = attend(inputs, edge_index, dist)
    explicit, _ = attend(inputs, edge_index, dist, backend="reference")
    outside, _ = attend(inputs, edge_index, dist)
    assert torch.equal(inside, explicit)
    assert not torch.equal(outside, explicit)


def test_door_refuses_bad_arguments_by_name():
    edge_index, dist = random_edges(6, 30)
    query, key, value, rho, encoding = random_inputs(6)
    graph = group_edges(edge_index, dist, 6)
    basis = GaussianBasis(NUM_BASIS, 2.0)
    with pytest.raises(ValueError, match=r"key: expected shape \(6, 3, 5\), received \(5, 3, 5\)"):
        infinite_attention(query, key[:-1], value, rho, graph)
    with pytest.raises(
        ValueError, match=r"rho: expected torch.float64, beside a query of torch.float64, received torch.float32"
    ):
        infinite_attention(query, key, value, rho.float(), graph)
    with pytest.raises(ValueError, match="basis: expected one together with value_encoding"):
        infinite_attention(query, key, value, rho, graph, value_encoding=encoding)
    with pytest.raises(ValueError, match=r"value_encoding: expected shape \(3, 5, 7\)"):
        infinite_attention(query, key, value, rho, graph, value_encoding=encoding[:, :2], basis=basis)
    with pytest.raises(ValueError, match="backend: expected one of 'auto'"):
        infinite_attention(query, key, value, rho, graph, backend="cuda")
    with pytest.raises(TypeError, match=r"query: expected a torch.Tensor"):
        infinite_attention([1.0], key, value, rho, graph)
    with pytest.raises(ValueError, match=r"edge_index: expected atoms 0 .. 4"):
        group_edges(edge_index, dist, 5)
    with pytest.raises(ValueError, match=r"query: expected a dtype of floating point"):
        infinite_attention(query.long(), key, value, rho, graph)
    with pytest.raises(ValueError, match=r"rho: expected torch.float32, beside a query of torch.float16"):
        infinite_attention(query.half(), key.half(), value.half(), rho, graph)
