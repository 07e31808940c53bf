"""The fused kernels against the reference: on a GPU where there is one, else through Triton's interpreter."""

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.ahead_of_time import report_of, resource_usage
from torch_geometric_crystal.ops import GaussianBasis, group_edges
from torch_geometric_crystal.ops.infinite_attention.blocked import backward_blocked, forward_blocked
from torch_geometric_crystal.ops.infinite_attention.reference import infinite_attention_reference
from torch_geometric_crystal.ops.infinite_attention.row_blocks import row_blocks
from torch_geometric_crystal.ops.strides import with_dense_rows

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from torch_geometric_crystal.ops.infinite_attention import triton_backward, triton_common, triton_forward  # noqa: E402
from torch_geometric_crystal.ops.infinite_attention.triton_backward import backward_triton  # noqa: E402
from torch_geometric_crystal.ops.infinite_attention.triton_forward import forward_triton  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
R0 = 1.4
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 2e-6, 5e-6
"""Relative to the largest element; five and twenty times below what is promised."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:divide by zero encountered:RuntimeWarning:triton.runtime.interpreter",  # a row without edges: log2(0)
)


def random_graph(num_atoms, num_edges, seed=0):
    """Parallel edges in random order of distance, a self edge at zero distance, and a last atom that is no target."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(max(1, num_atoms), (num_edges,), generator=generator)
    target = torch.randint(max(1, num_atoms - 1), (num_edges,), generator=generator)
    dist = torch.rand(num_edges, generator=generator) * 6 + 0.5
    if num_edges:
        source[0], target[0], dist[0] = 0, 0, 0.0
    return group_edges(torch.stack([source, target]).to(DEVICE), dist.to(DEVICE), num_atoms)


def random_inputs(num_atoms, heads, head_dim, num_basis, dtype=torch.float32, seed=0):
    """Query, key, value (views of one array, as a layer passes them), rho and W^E."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(DEVICE)  # noqa: E731
    query, key, value = draw(num_atoms, 3, heads, head_dim).to(dtype).unbind(1)
    rho = torch.rand(num_atoms, heads, generator=generator).to(DEVICE) + 0.55
    encoding = draw(heads, head_dim, num_basis) if num_basis else None
    return query, key, value, rho, encoding


def basis_of(encoding):
    return None if encoding is None else GaussianBasis(encoding.size(-1), 14.0 / encoding.size(-1))


def run_triton(inputs, graph, need_dist=True, seed=1):
    """Outputs, gradients, and the random gradients of the outputs they belong to."""
    query, key, value, rho, encoding = inputs
    settings_ = (R0, query.size(-1) ** -0.5, encoding, basis_of(encoding))
    out, lse, mean_basis = forward_triton(query, key, value, rho, graph.dist, graph, *settings_)
    generator = torch.Generator().manual_seed(seed)
    incoming = tuple(torch.randn(t.shape, generator=generator).to(t) for t in (out, lse, mean_basis))
    incoming[1][graph.row_ptr.diff() == 0] = 0
    grads = backward_triton(
        *incoming, query, key, value, rho, graph.dist, graph, *settings_, out, lse, mean_basis, need_dist
    )
    return (out, lse, mean_basis), grads, incoming


def run_float64(inputs, graph, incoming):
    """The same in float64: output and log-sum-exp by the reference, mean basis and gradients by the blocked path."""
    query, key, value, rho, encoding = (None if t is None else t.double() for t in inputs)
    graph = graph._replace(dist=graph.dist.double())
    scale, basis = query.size(-1) ** -0.5, basis_of(encoding)
    out, lse = infinite_attention_reference(query, key, value, rho, graph, R0, scale, encoding, basis)
    arguments = (query, key, value, rho, graph.dist, list(row_blocks(graph)), R0, scale, encoding, basis)
    _, _, mean_basis = forward_blocked(*arguments)
    incoming = (t.double() for t in incoming)
    return (out, lse, mean_basis), backward_blocked(*incoming, *arguments, out, lse, mean_basis, True)


def assert_near(actual, expected, tolerance, terms=0.0):
    """Within the tolerance of the largest element, or of what is summed up in one, where the terms may cancel."""
    largest = max(float(expected.abs().max()), terms) if expected.numel() else 0.0
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    assert ((actual - expected).abs() <= tolerance * largest + 1e-30).all()


def assert_agreement(inputs, graph, output_tolerance=OUTPUT_TOLERANCE, gradient_tolerance=GRADIENT_TOLERANCE):
    outputs, grads, incoming = run_triton(inputs, graph)
    expected_outputs, expected_grads = run_float64(inputs, graph, incoming)
    filled = graph.row_ptr.diff() > 0
    for actual, expected in zip(outputs, expected_outputs, strict=True):
        assert_near(actual[filled], expected[filled], output_tolerance)
    for name, actual, expected in zip(grads._fields, grads, expected_grads, strict=True):
        assert (actual is None) == (expected is None or (name == "dist" and graph.dist.numel() == 0)), name
        if actual is not None:
            assert_near(actual, expected, gradient_tolerance, terms=0.1)  # incoming gradients are of order 1


@pytest.mark.parametrize(
    ("heads", "head_dim", "num_basis"),
    [(8, 16, 64), (8, 16, 0), (1, 8, 8), (3, 5, 24), (2, 64, 128), (18, 8, 16)],
    ids=["default", "plain values", "one head", "padded", "wide", "two blocks of heads"],
)
def test_output_and_every_gradient_agree_with_float64(heads, head_dim, num_basis):
    assert_agreement(random_inputs(7, heads, head_dim, num_basis), random_graph(7, 80))


@given(
    num_atoms=st.integers(1, 5), num_edges=st.integers(0, 40), heads=st.integers(1, 5), head_dim=st.integers(1, 9),
    num_basis=st.sampled_from([0, 8, 16, 24]), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=5, deadline=None, derandomize=True)
def test_any_small_shape_agrees_with_float64(num_atoms, num_edges, heads, head_dim, num_basis, seed):
    inputs = random_inputs(num_atoms, heads, head_dim, num_basis, seed=seed)
    if num_edges:
        assert_agreement(inputs, random_graph(num_atoms, num_edges, seed))
    else:
        (out, lse, _), grads, _ = run_triton(inputs, random_graph(num_atoms, 0))
        assert (out == 0).all()
        assert (lse == -torch.inf).all()
        assert all((grad == 0).all() for grad in grads[:4])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_storage_only(dtype):
    """Against float64 on the same rounded inputs: only the rounding of results to the dtype is left."""
    inputs, graph = random_inputs(4, 4, 8, 16, dtype), random_graph(4, 40)
    (out, lse, mean_basis), grads, _ = run_triton(inputs, graph)
    assert {t.dtype for t in (out, *grads[:3])} == {dtype}
    assert {t.dtype for t in (lse, mean_basis, grads.rho, grads.dist, grads.value_encoding)} == {torch.float32}
    rounding = torch.finfo(dtype).eps
    assert_agreement(inputs, graph, output_tolerance=rounding, gradient_tolerance=2 * rounding)


def test_rows_without_edges_give_zeros_and_minus_infinity():
    (out, lse, mean_basis), grads, _ = run_triton(random_inputs(4, 2, 8, 8), random_graph(4, 20))
    assert (out[-1] == 0).all()
    assert (mean_basis[-1] == 0).all()
    assert (lse[-1] == -torch.inf).all()
    assert (grads.query[-1] == 0).all()
    assert (grads.rho[-1] == 0).all()


def test_no_atoms_at_all():
    (out, lse, _), grads, _ = run_triton(random_inputs(0, 2, 8, 8), random_graph(0, 0))
    assert out.shape == (0, 2, 8)
    assert lse.shape == (0, 2)
    assert grads.key.shape == (0, 2, 8)


def test_one_pair_of_20000_images_agrees_with_float64():
    dist = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) * 12
    edge_index = torch.zeros(2, 20_000, dtype=torch.long)
    graph = group_edges(edge_index.to(DEVICE), dist.to(DEVICE), 1)
    inputs = random_inputs(1, 2, 8, 8)
    query, key, value, rho, encoding = inputs
    out, lse, _ = forward_triton(query, key, value, rho, graph.dist, graph, R0, 0.3, encoding, basis_of(encoding))
    double = (t.double() for t in (query, key, value, rho))
    expected_out, expected_lse = infinite_attention_reference(
        *double, graph._replace(dist=dist.to(DEVICE).double()), R0, 0.3, encoding.double(), basis_of(encoding)
    )
    assert_near(out, expected_out, OUTPUT_TOLERANCE)
    assert_near(lse, expected_lse, OUTPUT_TOLERANCE)


def test_row_of_100_pairs_of_one_image_agrees_with_float64():
    """Seven chunks of pairs. The gradient of rho is what is left of terms much larger than itself."""
    num_atoms = 100
    edge_index = torch.stack([torch.arange(num_atoms), torch.zeros(num_atoms, dtype=torch.long)])
    dist = torch.rand(num_atoms, generator=torch.Generator().manual_seed(0)) * 6
    graph = group_edges(edge_index.to(DEVICE), dist.to(DEVICE), num_atoms)
    assert_agreement(random_inputs(num_atoms, 1, 8, 8), graph, gradient_tolerance=2e-5)


def test_logits_hundreds_apart_in_any_order_neither_overflow_nor_vanish():
    """The heaviest pair comes late, its nearest image last of all, and what others summed before underflows."""
    num_atoms = 40
    source = torch.arange(num_atoms).repeat_interleave(3)
    dist = torch.tensor([7.0, 6.5, 6.0]).repeat(num_atoms)
    graph = group_edges(torch.stack([source, torch.zeros_like(source)]).to(DEVICE), dist.to(DEVICE), num_atoms)
    query, key, value, rho, encoding = random_inputs(num_atoms, 2, 8, 8)
    key = key * torch.linspace(0, 100, num_atoms, device=DEVICE)[:, None, None]
    out, lse, _ = forward_triton(query, key, value, rho * 9, graph.dist, graph, R0, 1.0, encoding, basis_of(encoding))
    expected, expected_lse = infinite_attention_reference(
        query.double(), key.double(), value.double(), rho.double() * 9, graph._replace(dist=graph.dist.double()),
        R0, 1.0, encoding.double(), basis_of(encoding),
    )  # fmt: skip
    assert expected_lse[0].abs().min() > 88  # beyond what exp holds in float32
    assert_near(lse[0], expected_lse[0], 1e-6)
    assert_near(out[0], expected[0], 2e-4)  # logits of several hundred carry that error in float32


def test_strided_views_are_read_in_place():
    query, key, value, _, _ = random_inputs(5, 2, 8, 8)
    assert query.stride(0) == 3 * 2 * 8
    assert all(with_dense_rows(tensor) is tensor for tensor in (query, key, value))
    transposed = query.transpose(1, 2)
    assert with_dense_rows(transposed).is_contiguous()
    assert torch.equal(with_dense_rows(transposed), transposed)


def test_two_runs_give_the_same_bits():
    inputs, graph = random_inputs(4, 3, 8, 16), random_graph(4, 50)
    (outputs, grads, _), (outputs_again, grads_again, _) = run_triton(inputs, graph), run_triton(inputs, graph)
    for first, second in zip((*outputs, *grads), (*outputs_again, *grads_again), strict=True):
        assert torch.equal(first, second)


def test_gradient_of_distances_is_left_out_where_not_needed():
    inputs, graph = random_inputs(4, 2, 8, 8), random_graph(4, 30)
    _, with_dist, _ = run_triton(inputs, graph)
    _, without, _ = run_triton(inputs, graph, need_dist=False)
    assert without.dist is None
    assert with_dist.dist.shape == graph.dist.shape
    for name in ("query", "key", "value", "rho", "value_encoding"):
        torch.testing.assert_close(getattr(without, name), getattr(with_dist, name), rtol=1e-5, atol=1e-6)


@triton.jit
def cut_kernel(source, target, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)
    tl.store(target + index, triton_common.leading_bits(tl.load(source + index)))


def test_split_products_keep_float32_accuracy_where_one_tf32_product_does_not():
    """Tensor cores emulated, operands cut to tf32's 10 stored bits, on weights and Gaussians of a row of 128 edges."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.exp(-6 * torch.rand(128 * 8, generator=generator))
    basis = torch.exp(-0.5 * (torch.rand(128, 1, generator=generator) * 40 - torch.arange(1, 65)) ** 2).flatten()

    def cut(tensor):
        result = torch.empty_like(tensor, device=DEVICE)
        cut_kernel[(1,)](tensor.to(DEVICE), result, SIZE=tensor.numel(), enable_fp_fusion=True)
        return result.cpu()

    def tf32(array):
        return (array.astype(np.float32).view(np.int32) & ~np.int32(0x1FFF)).view(np.float32).astype(np.float64)

    def parts(tensor, shape):
        high = cut(tensor)
        assert np.array_equal(tf32(high.numpy()), high.double().numpy())
        return high.numpy().reshape(shape), (tensor - high).numpy().reshape(shape)

    (w_high, w_low), (b_high, b_low) = parts(weight, (128, 8)), parts(basis, (128, 64))
    exact = basis.double().numpy().reshape(128, 64).T @ weight.double().numpy().reshape(128, 8)
    once = tf32(b_high).T @ tf32(w_high)
    split = once + tf32(b_low).T @ tf32(w_high) + tf32(b_high).T @ tf32(w_low)
    scale = exact.max()
    assert np.abs(once - exact).max() / scale > 1e-4
    assert np.abs(split - exact).max() / scale < 5e-7


def compile_for_hopper():
    """Registers, stack and local memory of each kernel at the default sizes, compiled for sm_90, as JSON to stdout."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    report = {}
    for name, kernel, basis_values, need_dist in (
        ("forward", triton_forward.forward_kernel, 1024, False),
        ("rows", triton_backward.row_kernel, 2048, False),
        ("rows with distances", triton_backward.row_kernel, 1024, True),
        ("columns", triton_backward.column_kernel, 2048, False),
    ):
        tile = triton_common.tile_shape(8, 16, 64, basis_values)
        sizes = {
            "HEADS": 8, "DIM": 16, "BASIS": 64, "NEED_DIST": need_dist, "TILE_HEADS": tile.heads, "TILE_DIM": tile.dim,
            "TILE_BASIS": tile.basis, "PAIRS": tile.pairs, "SCAN": tile.scan, "SLOTS": tile.slots,
        }  # fmt: skip
        signature, aligned = {}, {}
        for index, argument in enumerate(kernel.arg_names):
            signature[argument] = argument_type(argument, sizes)
            if signature[argument][0] == "*" or argument.endswith("_stride"):
                aligned[(index,)] = [["tt.divisibility", 16]]
        source = ASTSource(
            kernel, signature, {key: size for key, size in sizes.items() if key in kernel.arg_names}, aligned
        )
        options = {"num_warps": tile.num_warps, "enable_fp_fusion": True}
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        report[name] = resource_usage(compiled.asm["cubin"])
    sys.stdout.write(json.dumps(report))


def argument_type(argument, sizes):
    if argument in sizes:
        return "constexpr"
    if argument.endswith("_stride") or argument in ("num_rows", "num_edges"):
        return "i32"
    if argument in ("logit_scale", "decay_scale", "scale", "sharpness", "step"):
        return "fp32"
    indices = ("pair_order", "pair_ptr", "pair_source", "pair_target", "row_pair_ptr", "edge_pair", "column_ptr")
    return "*i64" if argument in (*indices, "column_pair") else "*fp32"


def test_kernels_compile_for_hopper_without_local_memory(tmp_path):
    report = report_of("tests.ops.infinite_attention.test_triton", "compile_for_hopper", tmp_path)
    assert set(report) == {"forward", "rows", "rows with distances", "columns"}
    for name, usage in report.items():
        assert usage["STACK"] == usage["LOCAL"] == 0, (name, usage)
