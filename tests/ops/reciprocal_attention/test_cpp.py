"""The C++ backend of reciprocal attention against the reference in float64: outputs and gradients, awkward sizes."""

import pytest
import torch

from tests.compiled_kernels import compiled_cache  # noqa: F401
from torch_geometric_crystal.ops import WaveVectors, gather_wave_vectors
from torch_geometric_crystal.ops.reciprocal_attention.blocked import backward_blocked
from torch_geometric_crystal.ops.reciprocal_attention.cpp import backward_cpp, forward_cpp
from torch_geometric_crystal.ops.reciprocal_attention.reference import reciprocal_attention_reference

pytestmark = pytest.mark.usefixtures("compiled_cache")

NAMES = ("query", "key", "value", "sigma_sq")
SCALE = 0.4


def half_space(reach):
    """(0, 0, 0) and one of each pair m, -m of integer triples with entries up to `reach`."""
    axis = torch.arange(-reach, reach + 1)
    triples = torch.cartesian_prod(axis, axis, axis)
    code = triples @ torch.tensor([(4 * reach + 1) ** 2, 4 * reach + 1, 1])
    return triples[code >= 0][code[code >= 0].argsort()]


def random_waves(num_atoms, reaches, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cell = torch.eye(3) * 4 + torch.rand(len(num_atoms), 3, 3, generator=generator)
    pos = torch.rand(sum(num_atoms), 3, generator=generator) * 6
    vectors = [half_space(reach) for reach in reaches]
    ptr = torch.tensor([0, *num_atoms]).cumsum(0)
    return gather_wave_vectors(pos, cell, torch.cat(vectors), torch.tensor([len(v) for v in vectors]), ptr)


def random_inputs(num_atoms, heads, head_dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(num_atoms, 3, heads, head_dim, generator=generator).unbind(1)
    return query, key, value, torch.rand(num_atoms, heads, generator=generator) * 2 + 1.0


def assert_close(actual, expected, tolerance, name):
    assert actual.dtype == torch.float32
    error = (actual.double() - expected.detach()).abs().max() / expected.detach().abs().max().clamp(min=1.0)
    assert float(error) < tolerance, name


@pytest.mark.parametrize("floor", [1e-6, 0.3])
@pytest.mark.parametrize(("heads", "head_dim"), [(4, 16), (1, 4), (3, 5), (12, 8), (9, 20)])
def test_agrees_with_the_reference(heads, head_dim, floor):
    waves, inputs = random_waves((1, 5, 3, 17), (1, 1, 2, 3)), random_inputs(26, heads, head_dim)
    out, lse = forward_cpp(*inputs, waves, SCALE, floor)
    grad_out, grad_lse = torch.randn(out.shape), torch.randn(lse.shape)
    gradients = backward_cpp(grad_out, grad_lse, *inputs, waves, SCALE, floor, out, lse, False)
    leaves = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected_out, expected_lse = reciprocal_attention_reference(*leaves, waves, SCALE, floor)
    assert_close(out, expected_out, 5e-6, "out")
    assert_close(lse, expected_lse, 5e-6, "lse")
    total = (expected_out * grad_out).sum() + (expected_lse * grad_lse).sum()
    for name, expected in zip(NAMES, torch.autograd.grad(total, leaves), strict=True):
        assert_close(getattr(gradients, name), expected, 3e-5, name)
    assert gradients.pos is None


def test_gradients_of_positions_are_the_blocked_ones():
    waves, inputs = random_waves((2, 5), (1, 2)), random_inputs(7, 3, 4)
    outputs = forward_cpp(*inputs, waves, SCALE, 1e-6)
    grads = [torch.randn_like(output) for output in outputs]
    actual = backward_cpp(*grads, *inputs, waves, SCALE, 1e-6, *outputs, True)
    expected = backward_blocked(*grads, *inputs, waves, SCALE, 1e-6, *outputs, True)
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))
    assert actual.pos is not None


def test_atoms_of_a_crystal_without_waves_give_and_get_nothing():
    some = random_waves((4, 3), (1, 1))
    per_crystal = some.wave_ptr[1]
    waves = WaveVectors(
        some.pos, some.vector[per_crystal:], some.atom_ptr, some.wave_ptr - torch.tensor([0, 1, 1]) * per_crystal,
        some.log_volume,
    )  # fmt: skip
    inputs = random_inputs(7, 3, 4)
    out, lse = forward_cpp(*inputs, waves, SCALE, 1e-6)
    full_out, full_lse = forward_cpp(*inputs, some, SCALE, 1e-6)
    assert bool((out[:4] == 0).all())
    assert bool((lse[:4] == -torch.inf).all())
    assert torch.equal(out[4:], full_out[4:])
    assert torch.equal(lse[4:], full_lse[4:])
    gradients = backward_cpp(
        torch.randn_like(out), torch.randn_like(lse), *inputs, waves, SCALE, 1e-6, out, lse, False
    )  # fmt: skip
    for name in NAMES:
        assert bool((getattr(gradients, name)[:4] == 0).all()), name
        assert bool(getattr(gradients, name)[4:].any()), name


def test_results_are_bitwise_equal_for_any_number_of_threads():
    waves, inputs = random_waves((9, 5, 3, 17, 8), (1, 1, 2, 3, 2)), random_inputs(42, 4, 16)
    grad_out, grad_lse = torch.randn(42, 4, 16), torch.randn(42, 4)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs = forward_cpp(*inputs, waves, SCALE, 1e-6)
            gradients = backward_cpp(grad_out, grad_lse, *inputs, waves, SCALE, 1e-6, *outputs, False)
            results.append((*outputs, *gradients[:4]))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(actual, expected) for actual, expected in zip(result, results[0], strict=True))
