"""The fused kernels of reciprocal attention against the reference: on a GPU where there is one, else interpreted."""

import json
import sys

import pytest
import torch

from tests.ops.ahead_of_time import report_of, resource_usage
from torch_geometric_crystal.ops import WaveVectors, reciprocal_attention
from torch_geometric_crystal.ops.reciprocal_attention.reference import reciprocal_attention_reference

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from torch_geometric_crystal.ops.reciprocal_attention import triton_backward, triton_common, triton_forward  # noqa: E402
from torch_geometric_crystal.ops.reciprocal_attention.triton_backward import backward_triton  # noqa: E402
from torch_geometric_crystal.ops.reciprocal_attention.triton_forward import forward_triton  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALE = 0.4
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 2e-6, 1e-5
"""Relative to the largest element; five and ten times below what is promised."""

ATOMS, WAVES = (18, 1, 5, 3), (35, 6, 0, 1)
"""Two tiles of rows and three of waves; one atom; no waves; the zero wave alone."""


def random_waves(num_atoms=ATOMS, num_waves=WAVES, far=0.0, seed=0):
    """Crystals with random waves, the zero wave first, and positions up to `far` cells away."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(sum(num_waves), 3, generator=generator)
    wave_ptr = torch.tensor([0, *num_waves]).cumsum(0)
    vector[wave_ptr[:-1][wave_ptr.diff() > 0]] = 0.0
    pos = torch.rand(sum(num_atoms), 3, generator=generator) * 6 + far
    atom_ptr = torch.tensor([0, *num_atoms]).cumsum(0)
    waves = WaveVectors(pos, vector, atom_ptr, wave_ptr, torch.zeros(len(num_atoms)))
    return WaveVectors(*(tensor.to(DEVICE) for tensor in waves))


def random_inputs(num_atoms, heads, head_dim, dtype=torch.float32, seed=0):
    """Query, key, value (views of one array, as a layer passes them) and sigma^2."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(num_atoms, 3, heads + 1, head_dim, generator=generator).to(DEVICE, dtype)[:, :, 1:].unbind(1)
    return (*qkv, (torch.rand(num_atoms, heads, generator=generator) + 0.7).to(DEVICE))


def run_triton(inputs, waves, floor, need_pos=True):
    """Outputs, gradients, and the random gradients of the outputs they belong to."""
    out, lse = forward_triton(*inputs, waves, SCALE, floor)
    generator = torch.Generator().manual_seed(1)
    grad_out, grad_lse = (torch.randn(t.shape, generator=generator).to(t) for t in (out, lse))
    grads = backward_triton(grad_out, grad_lse, *inputs, waves, SCALE, floor, out, lse, need_pos)
    return (out, lse), grads, (grad_out, grad_lse)


def run_reference(inputs, waves, floor, grad_out, grad_lse):
    """The same in float64."""
    leaves = [t.double().detach().requires_grad_() for t in (*inputs, waves.pos, waves.vector)]
    exact = waves._replace(pos=leaves[4], vector=leaves[5])
    out, lse = reciprocal_attention_reference(*leaves[:4], exact, SCALE, floor)
    finite = torch.isfinite(lse)
    loss = (out * grad_out.double()).sum() + (lse[finite] * grad_lse[finite].double()).sum()
    return (out, lse), torch.autograd.grad(loss, leaves)


def assert_close(actual, expected, tolerance, name):
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(actual), finite), name
    error = (actual.double() - expected)[finite].abs().max() / expected[finite].abs().max()
    assert error <= tolerance, (name, float(error))


NAMES = ("query", "key", "value", "sigma_sq", "pos", "vector")


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 16), (2, 5), (1, 40)])
def test_outputs_and_every_gradient_agree_with_the_reference(heads, head_dim):
    waves, inputs = random_waves(), random_inputs(sum(ATOMS), heads, head_dim)
    outputs, grads, incoming = run_triton(inputs, waves, 1e-6)
    expected, expected_grads = run_reference(inputs, waves, 1e-6, *incoming)
    for name, actual, exact in zip(("out", "lse"), outputs, expected, strict=True):
        assert actual.dtype == torch.float32
        assert_close(actual, exact, OUTPUT_TOLERANCE, name)
    for name, actual, exact in zip(NAMES, grads, expected_grads, strict=True):
        assert_close(actual, exact, GRADIENT_TOLERANCE, name)


def test_no_gradient_flows_where_the_floor_acts():
    waves, inputs, floor = random_waves((6, 2), (20, 4)), random_inputs(8, 2, 8), 1.0
    outputs, grads, incoming = run_triton(inputs, waves, floor)
    expected, expected_grads = run_reference(inputs, waves, floor, *incoming)
    _, raised = run_reference(inputs, waves, 1e-6, *incoming)
    assert not torch.allclose(raised[3], expected_grads[3], rtol=0.1)  # the floor acts on some pairs
    assert expected_grads[3].abs().min() > 0  # and not on all
    assert_close(outputs[1], expected[1], OUTPUT_TOLERANCE, "lse")
    for name, actual, exact in zip(NAMES, grads, expected_grads, strict=True):
        assert_close(actual, exact, GRADIENT_TOLERANCE, name)


def test_atoms_without_waves_give_zero_and_minus_infinity_and_no_gradients():
    waves, inputs = random_waves((2, 3), (0, 4)), random_inputs(5, 2, 8)
    (out, lse), grads, _ = run_triton(inputs, waves, 1e-6)
    assert torch.equal(out[:2], torch.zeros_like(out[:2]))
    assert bool((lse[:2] == -torch.inf).all())
    assert bool(torch.isfinite(lse[2:]).all())
    for name in NAMES[:5]:
        gradient = getattr(grads, name)
        assert torch.equal(gradient[:2], torch.zeros_like(gradient[:2])), name
        assert bool((gradient[2:] != 0).any()), name


def test_no_atoms_and_no_waves_at_all():
    waves = random_waves((0, 3), (0, 0))
    (out, lse), grads, _ = run_triton(random_inputs(3, 2, 8), waves, 1e-6)
    assert torch.equal(out, torch.zeros_like(out))
    assert bool((lse == -torch.inf).all())
    assert grads.vector.shape == (0, 3)
    empty, grads, _ = run_triton(random_inputs(0, 2, 8), random_waves((), ()), 1e-6)
    assert empty[0].shape == grads.query.shape == (0, 2, 8)


def test_positions_and_waves_get_gradients_only_where_asked_for():
    waves, inputs = random_waves((3,), (4,)), random_inputs(3, 2, 8)
    _, without, _ = run_triton(inputs, waves, 1e-6, need_pos=False)
    _, with_positions, _ = run_triton(inputs, waves, 1e-6)
    assert without.pos is None
    assert without.vector is None
    for name in NAMES[:4]:
        assert torch.equal(getattr(without, name), getattr(with_positions, name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_storage_alone(dtype):
    waves, inputs = random_waves((5, 2), (20, 4)), random_inputs(7, 2, 8, dtype)
    outputs, grads, incoming = run_triton(inputs, waves, 1e-6)
    expected, expected_grads = run_reference(inputs, waves, 1e-6, *incoming)
    rounding = torch.finfo(dtype).eps
    assert outputs[0].dtype == grads.query.dtype == grads.key.dtype == grads.value.dtype == dtype
    assert outputs[1].dtype == grads.sigma_sq.dtype == grads.pos.dtype == torch.float32
    assert_close(outputs[0], expected[0], rounding, "out")
    assert_close(outputs[1], expected[1], OUTPUT_TOLERANCE, "lse")
    for name, actual, exact in zip(NAMES, grads, expected_grads, strict=True):
        assert_close(actual, exact, 4 * rounding, name)  # the rounded output enters the gradients


def test_results_do_not_depend_on_where_the_crystal_lies():
    """Positions are taken relative to an atom of the crystal: 1,000 A away the phases lose what the positions lose."""
    inputs = random_inputs(6, 2, 8)
    near, far = (random_waves((4, 2), (20, 4), far=far) for far in (0.0, 1000.0))
    moved = far._replace(pos=far.pos - 1000.0)
    assert torch.equal(forward_triton(*inputs, far, SCALE, 1e-6)[0], forward_triton(*inputs, moved, SCALE, 1e-6)[0])
    assert not torch.equal(moved.pos, near.pos)


def test_a_run_repeats_to_the_bit():
    waves, inputs = random_waves((18, 2), (5, 4)), random_inputs(20, 1, 8)
    (first, second) = (run_triton(inputs, waves, 1e-6) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True))


def test_the_public_operation_runs_these_kernels(monkeypatch):
    waves, inputs = random_waves((3, 2), (5, 4)), random_inputs(5, 2, 8)
    calls = []
    forward = triton_forward.forward_triton
    monkeypatch.setattr(triton_forward, "forward_triton", lambda *args: calls.append("forward") or forward(*args))
    backward = triton_backward.backward_triton
    monkeypatch.setattr(triton_backward, "backward_triton", lambda *args: calls.append("backward") or backward(*args))
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out, _ = reciprocal_attention(*leaves, waves, backend="triton")
    grads = torch.autograd.grad(out.square().sum(), leaves)
    out, _ = reciprocal_attention(*leaves, waves, backend="blocked")
    for actual, expected in zip(grads, torch.autograd.grad(out.square().sum(), leaves), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert calls == ["forward", "backward"]


@triton.jit
def find_kernel(ptr, result, num_segments, BLOCK: tl.constexpr):
    slot = tl.program_id(0)
    segment, first, end = triton_common.find_block(ptr, num_segments, slot, BLOCK)
    tl.store(result + slot * 3, segment)
    tl.store(result + slot * 3 + 1, first)
    tl.store(result + slot * 3 + 2, end)


@pytest.mark.parametrize("counts", [(1,), (16, 16), (0, 5, 0, 0, 40, 17, 1, 1, 1, 1, 0), (0, 0)])
def test_slots_cover_every_member_of_every_segment_once(counts):
    block = 16
    ptr = torch.tensor([0, *counts]).cumsum(0)
    slots = triton_common.num_slots(sum(counts), len(counts), block)
    result = torch.zeros(slots, 3, dtype=torch.int64, device=DEVICE)
    find_kernel[(slots,)](ptr.to(DEVICE), result, len(counts), BLOCK=block)
    blocks = [tuple(row) for row in result.tolist() if row[1] < row[2]]
    expected = [
        (segment, first, int(ptr[segment + 1]))
        for segment in range(len(counts))
        for first in range(int(ptr[segment]), int(ptr[segment + 1]), block)
    ]
    assert blocks == expected


@triton.jit
def phase_kernel(wave, position, result, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    g, p = tl.load(wave + index), tl.load(position + index)
    cos, sin = triton_common.cos_sin(g, 0.0 * g, 0.0 * g, p, 0.0 * p, 0.0 * p)
    tl.store(result + index, cos)
    tl.store(result + BLOCK + index, sin)


@triton.jit
def fused_kernel(result):
    a = 1.0 + 0.000244140625 * tl.full((1,), 1.0, tl.float32)  # 1 + 2^-12, whose square needs 25 bits
    tl.store(result + tl.arange(0, 1), tl.fma(a, a, -1.00048828125 + 0.0 * a))


def rounds_once() -> bool:
    """Whether the fused multiply-add is fused: always on a GPU, not in every release of the interpreter."""
    result = torch.empty(1, device=DEVICE)
    fused_kernel[(1,)](result)
    return result.item() == 2.0**-24


@pytest.mark.parametrize("reach", [1.0, 30.0, 1000.0])
def test_phases_are_accurate_however_large(reach):
    """Up to 1,000 turns: the product g p is never rounded before whole turns are taken off."""
    generator = torch.Generator().manual_seed(0)
    wave, position = (torch.rand(1024, generator=generator) * 6 - 3), torch.rand(1024, generator=generator) * reach
    result = torch.empty(2, 1024, device=DEVICE)
    options = {} if DEVICE == "cpu" else {"enable_fp_fusion": True}
    phase_kernel[(1,)](wave.to(DEVICE), position.to(DEVICE), result, BLOCK=1024, **options)
    angle = wave.double() * position.double()
    exact = torch.stack([angle.cos(), angle.sin()])
    rounding = 0.0 if rounds_once() else reach * 3 * 2.0**-23
    assert (result.cpu().double() - exact).abs().max() < 5e-7 + rounding


def compile_for_gpus():
    """Registers and stack of each kernel in its largest tile, by target, kernel and dtype, as JSON to stdout."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = {
        "forward": (triton_forward.forward_kernel, False),
        "rows": (triton_backward.row_kernel, True),
        "columns": (triton_backward.column_kernel, False),
        "columns with positions": (triton_backward.column_kernel, True),
        "waves": (triton_backward.wave_kernel, True),
    }
    cases = [(90, "fp32", "forward"), (90, "fp32", "columns with positions"), (90, "fp32", "waves")]
    cases += [(90, "bf16", "rows"), (80, "fp16", "columns")]
    report = {}
    waves = random_waves((64,), (64,))
    for architecture, dtype, name in cases:
        kernel, need_pos = kernels[name]
        options = triton_common.launch_options(name, torch.empty(64, 8, 16), waves) | {"NEED_POS": need_pos}
        sizes = {key: options[key] for key in kernel.arg_names if key in options}
        signature = {argument: argument_type(argument, sizes, dtype) for argument in kernel.arg_names}
        aligned = {
            (index,): [["tt.divisibility", 16]]
            for index, argument in enumerate(kernel.arg_names)
            if signature[argument][0] == "*" or argument.endswith("_stride")
        }
        compiled = triton.compile(
            ASTSource(kernel, signature, sizes, aligned),
            target=GPUTarget("cuda", architecture, 32),
            options={key: options[key] for key in ("num_warps", "num_stages", "enable_fp_fusion")},
        )
        report[f"{architecture} {dtype} {name}"] = resource_usage(compiled.asm["cubin"])
    sys.stdout.write(json.dumps(report))


def argument_type(argument, sizes, dtype):
    if argument in sizes:
        return "constexpr"
    if argument in ("scale", "floor"):
        return "fp32"
    if argument.endswith("_stride") or argument.startswith("num_"):
        return "i32"
    if argument.endswith("_ptr"):
        return "*i64"
    stored = ("query", "key", "value", "out")
    return "*" + (dtype if argument.removeprefix("grad_") in stored else "fp32")


def test_kernels_compile_for_gpus_without_local_memory(tmp_path):
    report = report_of("tests.ops.reciprocal_attention.test_triton", "compile_for_gpus", tmp_path)
    assert len(report) == 5
    for name, usage in report.items():
        assert usage["STACK"] == usage["LOCAL"] == 0, (name, usage)
