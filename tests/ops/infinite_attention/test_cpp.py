"""The C++ backend against the reference in float64: outputs and every gradient, at awkward sizes."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.ops import GaussianBasis, group_edges, infinite_attention
from torch_geometric_crystal.ops.infinite_attention.cpp import backward_cpp, forward_cpp
from torch_geometric_crystal.ops.infinite_attention.reference import infinite_attention_reference

pytestmark = pytest.mark.usefixtures("compiled_cache")

R0, SCALE = 1.4, 0.4
NAMES = ("query", "key", "value", "rho", "dist", "value_encoding")
SIZES = [(8, 16, 64), (1, 4, 7), (3, 20, 24), (12, 8, 8), (8, 64, 128), (2, 16, 0), (5, 3, 17), (9, 1, 16)]


def random_graph(num_atoms, num_edges, seed=0, farthest=9.0):
    """Parallel edges in any order of distance, atoms without edges, a self image."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(num_atoms, (num_edges,), generator=generator)
    target = torch.randint(max(num_atoms - 1, 1), (num_edges,), generator=generator)
    dist = torch.rand(num_edges, generator=generator) * farthest
    dist[:1] = 0.0
    return group_edges(torch.stack([source, target]), dist, num_atoms)


def random_inputs(num_atoms, heads, head_dim, num_basis, seed=0):
    """q, k, v as strided views of one tensor, rho, and W^E with its basis."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(num_atoms, 3, heads, head_dim, generator=generator).unbind(1)
    rho = torch.rand(num_atoms, heads, generator=generator) * 2 + 0.51
    if num_basis == 0:
        return query, key, value, rho, None, None
    encoding = torch.randn(heads, head_dim, num_basis, generator=generator) / num_basis**0.5
    return query, key, value, rho, encoding, GaussianBasis(num_basis, 14.0 / num_basis)


def run_cpp(graph, inputs, grad_out, grad_lse, need_dist=True, without=None):
    query, key, value, rho, encoding, basis = inputs
    arguments = (query, key, value, rho, graph.dist, graph, R0, SCALE, encoding, basis)
    outputs = forward_cpp(*arguments)
    grad_mean_basis = None if without == "grad_mean_basis" else torch.zeros_like(outputs[2])
    return outputs, backward_cpp(grad_out, grad_lse, grad_mean_basis, *arguments, *outputs, need_dist)


def run_reference(graph, inputs, grad_out, grad_lse):
    query, key, value, rho, encoding, basis = inputs
    leaves = [
        None if tensor is None else tensor.detach().double().requires_grad_()
        for tensor in (query, key, value, rho, graph.dist, encoding)
    ]
    outputs = infinite_attention_reference(
        *leaves[:4], graph._replace(dist=leaves[4]), R0, SCALE, leaves[5], basis
    )  # fmt: skip
    filled = graph.row_ptr.diff() > 0
    total = (outputs[0] * grad_out).sum() + (outputs[1] * grad_lse)[filled].sum()
    present = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(total, present, materialize_grads=True))
    return outputs, [None if leaf is None else next(gradients) for leaf in leaves]


def assert_agrees(graph, inputs):
    generator = torch.Generator().manual_seed(1)
    grad_out = torch.randn(inputs[0].shape, generator=generator)
    grad_lse = torch.randn(inputs[3].shape, generator=generator)
    (out, lse, mean_basis), gradients = run_cpp(graph, inputs, grad_out, grad_lse)
    (expected_out, expected_lse), expected_gradients = run_reference(graph, inputs, grad_out, grad_lse)
    filled = graph.row_ptr.diff() > 0
    assert_close(out, expected_out, 2e-6, "out")
    assert_close(lse[filled], expected_lse[filled], 2e-6, "lse")
    assert bool((out[~filled] == 0).all())
    assert bool((lse[~filled] == -torch.inf).all())
    assert bool((mean_basis[~filled] == 0).all())
    for name, gradient, expected in zip(NAMES, gradients, expected_gradients, strict=True):
        assert (gradient is None) == (expected is None), name
        if expected is not None:
            assert_close(gradient, expected, 1e-5, name)


def assert_close(actual, expected, tolerance, name):
    """A fifth of the promised 1e-5, a tenth of 1e-4, of the largest entry (or of one where all are small)."""
    assert actual.dtype == torch.float32
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return
    expected = expected.detach()
    error = (actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1.0)
    assert float(error) < tolerance, name


@pytest.mark.parametrize(("heads", "head_dim", "num_basis"), SIZES)
def test_agrees_with_the_reference(heads, head_dim, num_basis):
    assert_agrees(random_graph(13, 500), random_inputs(13, heads, head_dim, num_basis))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_atoms=st.integers(1, 40),
    num_edges=st.integers(0, 300),
    heads=st.integers(1, 18),
    head_dim=st.integers(1, 33),
    num_basis=st.integers(0, 90),
    farthest=st.sampled_from([0.5, 3.0, 6.0]),  # where a row's nearest image is far, its logits lose digits
    seed=st.integers(0, 2**16),
)
def test_agrees_with_the_reference_at_any_size(num_atoms, num_edges, heads, head_dim, num_basis, farthest, seed):
    graph = random_graph(num_atoms, num_edges, seed, farthest)
    assert_agrees(graph, random_inputs(num_atoms, heads, head_dim, num_basis, seed))


def test_a_row_of_20000_images_agrees():
    edge_index = torch.zeros(2, 20_000, dtype=torch.int64)
    dist = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) * 12
    assert_agrees(group_edges(edge_index, dist, 2), random_inputs(2, 8, 16, 64))


def test_edges_beyond_the_last_centre_agree():
    generator = torch.Generator().manual_seed(0)
    source, dist = torch.randint(9, (20, 9), generator=generator), torch.rand(20, 9, generator=generator) * 60
    dist[0] = 0.3  # one near image in each row, for a logit of -1000 has no digits left behind the point
    edge_index = torch.stack([source.flatten(), torch.arange(9).repeat(20)])
    assert_agrees(group_edges(edge_index, dist.flatten(), 9), random_inputs(9, 8, 16, 30))


def test_many_pairs_of_one_image_agree():
    target = torch.arange(40).repeat_interleave(40)
    dist = torch.rand(1600, generator=torch.Generator().manual_seed(0)) * 6
    graph = group_edges(torch.stack([torch.arange(40).repeat(40), target]), dist, 40)
    assert graph.pair_source.numel() == 1600
    assert_agrees(graph, random_inputs(40, 8, 16, 64))


def test_gradient_of_the_mean_basis_is_that_of_the_blocked_backend():
    """The mean basis is an output of its own: its gradient arrives where second derivatives were taken."""
    from torch_geometric_crystal.ops.infinite_attention.blocked import backward_blocked, forward_blocked
    from torch_geometric_crystal.ops.infinite_attention.row_blocks import row_blocks

    graph, inputs = random_graph(9, 200), random_inputs(9, 3, 5, 24)
    query, key, value, rho, encoding, basis = inputs
    outputs = forward_cpp(query, key, value, rho, graph.dist, graph, R0, SCALE, encoding, basis)
    grads = [torch.randn_like(output) for output in outputs]
    actual = backward_cpp(
        *grads, query, key, value, rho, graph.dist, graph, R0, SCALE, encoding, basis, *outputs, True
    )  # fmt: skip
    doubles = [tensor.double() for tensor in (query, key, value, rho, graph.dist)]
    arguments = (*doubles, list(row_blocks(graph)), R0, SCALE, encoding.double(), basis)
    exact = forward_blocked(*arguments)
    assert_close(outputs[2], exact[2], 2e-6, "mean_basis")
    expected = backward_blocked(*(grad.double() for grad in grads), *arguments, *exact, True)
    for name, gradient, exact_gradient in zip(NAMES, actual, expected, strict=True):
        assert_close(gradient, exact_gradient, 1e-5, name)


def test_large_logits_neither_overflow_nor_lose_their_row():
    graph, (query, key, value, rho, encoding, basis) = random_graph(10, 300), random_inputs(10, 8, 16, 64)
    assert_agrees(graph, (query * 4, key * 4, value, rho * 20, encoding, basis))


@pytest.mark.parametrize("spoiled", ["query", "value", "dist"])
def test_not_a_number_shows_in_its_own_row_alone(spoiled):
    graph, (query, key, value, rho, encoding, basis) = random_graph(10, 300), random_inputs(10, 8, 16, 64)
    tensors = {"query": query, "value": value, "dist": graph.dist}
    spoiled_row = 0 if spoiled == "query" else int(graph.target()[0])
    tensors[spoiled][0] = torch.nan
    out, *_ = forward_cpp(query, key, value, rho, graph.dist, graph, R0, SCALE, encoding, basis)
    assert bool(out[spoiled_row].isnan().any())
    if spoiled != "value":
        assert bool(out.isfinite().flatten(1).all(1)[torch.arange(10) != spoiled_row].all())


def test_results_are_bitwise_equal_for_any_number_of_threads():
    graph, inputs = random_graph(60, 6000), random_inputs(60, 8, 16, 64)
    grad_out, grad_lse = torch.randn(60, 8, 16), torch.randn(60, 8)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            outputs, gradients = run_cpp(graph, inputs, grad_out, grad_lse)
            results.append((*outputs, *gradients))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(actual, expected) for actual, expected in zip(result, results[0], strict=True))


def test_strided_and_contiguous_inputs_give_the_same_bits():
    graph, (query, key, value, rho, encoding, basis) = random_graph(20, 400), random_inputs(20, 8, 16, 64)
    dense = (query.contiguous(), key.contiguous(), value.transpose(1, 2).contiguous().transpose(1, 2))
    assert query.stride(0) == 3 * 8 * 16
    assert dense[2].stride(2) != 1
    grad_out, grad_lse = torch.randn(20, 8, 16), torch.randn(20, 8)
    strided = run_cpp(graph, (query, key, value, rho, encoding, basis), grad_out, grad_lse)
    packed = run_cpp(graph, (*dense, rho, encoding, basis), grad_out, grad_lse)
    for one, other in zip((*strided[0], *strided[1]), (*packed[0], *packed[1]), strict=True):
        assert torch.equal(one, other)


def test_gradients_that_are_not_asked_for_are_not_there():
    graph, inputs = random_graph(8, 100), random_inputs(8, 8, 16, 64)
    grad_out, grad_lse = torch.randn(8, 8, 16), torch.zeros(8, 8)
    _, asked = run_cpp(graph, inputs, grad_out, grad_lse)
    _, spared = run_cpp(graph, inputs, grad_out, grad_lse, need_dist=False, without="grad_mean_basis")
    assert spared.dist is None
    for name in ("query", "key", "value", "rho", "value_encoding"):
        assert torch.equal(getattr(spared, name), getattr(asked, name)), name


@pytest.mark.usefixtures("with_kernels")
def test_public_operation_runs_on_it_by_itself_and_when_forced():
    graph, (query, key, value, rho, encoding, basis) = random_graph(12, 300), random_inputs(12, 8, 16, 64)
    options = {"value_encoding": encoding, "basis": basis}
    forced, _ = infinite_attention(query, key, value, rho, graph, **options, backend="cpp")
    chosen, _ = infinite_attention(query, key, value, rho, graph, **options)
    blocked, _ = infinite_attention(query, key, value, rho, graph, **options, backend="blocked")
    assert torch.equal(forced, chosen)
    assert not torch.equal(forced, blocked)
    torch.testing.assert_close(forced, blocked, rtol=1e-5, atol=1e-5)


class _Attend(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        query, key, value, rho, encoding, basis = random_inputs(12, 8, 16, 64)
        graph = random_graph(12, 300)
        return forward_cpp(query, key, value, rho, graph.dist, graph, R0, SCALE, encoding, basis)[0]


def test_it_runs_in_a_forked_worker():
    here = _Attend()[0]
    loader = DataLoader(_Attend(), batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert all(torch.equal(there, here) for there in loader)
