"""Crystals without waves: their atoms attend to nothing, whichever backend runs, and disturb no other crystal."""

import pytest
import torch

from torch_geometric_crystal.ops import gather_wave_vectors, reciprocal_attention
from torch_geometric_crystal.ops.reciprocal_attention.crystal_blocks import crystal_blocks

INDICES = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])


def gathered(num_atoms, num_waves, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(sum(num_atoms), 3, generator=generator, dtype=dtype) * 4
    cell = 4 * torch.eye(3, dtype=dtype).repeat(len(num_atoms), 1, 1)
    indices = torch.cat([INDICES[:count] for count in num_waves])
    ptr = torch.tensor([0, *num_atoms]).cumsum(0)
    return gather_wave_vectors(pos.requires_grad_(), cell, indices, torch.tensor(num_waves), ptr)


def random_inputs(num_atoms, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(3, num_atoms, 2, 8, generator=generator, dtype=dtype)
    sigma_sq = 1 + torch.rand(num_atoms, 2, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (*qkv.unbind(0), sigma_sq)]


def part(inputs, atoms):
    return [tensor.detach()[atoms].requires_grad_() for tensor in inputs]


@pytest.mark.parametrize("num_waves", [(0, 4, 0), (4, 0, 4), (0, 0, 4), (4, 0, 0)])
@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_other_crystals_are_as_without_them(backend, num_waves):
    num_atoms, inputs = (2, 3, 1), random_inputs(6)
    waves = gathered(num_atoms, num_waves)
    out, lse = reciprocal_attention(*inputs, waves, backend=backend)
    grads = torch.autograd.grad(out.square().sum(), [*inputs, waves.pos])
    kept = [crystal for crystal in range(3) if num_waves[crystal]]
    atoms = torch.isin(waves.crystal_of_atom(), torch.tensor(kept))
    alone = gathered([num_atoms[crystal] for crystal in kept], [4] * len(kept))
    alone = alone._replace(pos=waves.pos.detach()[atoms].requires_grad_())
    inputs_alone = part(inputs, atoms)
    expected, expected_lse = reciprocal_attention(*inputs_alone, alone, backend=backend)
    torch.testing.assert_close(out[atoms], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse[atoms], expected_lse, rtol=1e-12, atol=1e-12)
    assert torch.equal(out[~atoms], torch.zeros_like(out[~atoms]))
    assert bool((lse[~atoms] == -torch.inf).all())
    expected_grads = torch.autograd.grad(expected.square().sum(), [*inputs_alone, alone.pos])
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad[atoms], expected_grad, rtol=1e-10, atol=1e-12)
        assert torch.equal(grad[~atoms], torch.zeros_like(grad[~atoms]))


def test_no_crystal_has_waves():
    waves, inputs = gathered((2, 1), (0, 0)), random_inputs(3)
    assert list(crystal_blocks(waves)) == []
    out, lse = reciprocal_attention(*inputs, waves, backend="blocked")
    assert torch.equal(out, torch.zeros_like(out))
    assert bool((lse == -torch.inf).all())
    (grad,) = torch.autograd.grad(out.sum(), inputs[0])
    assert torch.equal(grad, torch.zeros_like(grad))


def test_the_first_wave_of_every_crystal_that_has_waves_is_still_checked():
    pos, cell = torch.zeros(2, 3), torch.eye(3).repeat(2, 1, 1)
    with pytest.raises(ValueError, match=r"wave_vector: expected \(0, 0, 0\) first in every crystal"):
        gather_wave_vectors(pos, cell, torch.ones(1, 3), torch.tensor([0, 1]), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"wave_vector: expected \(0, 0, 0\) first in every crystal"):
        gather_wave_vectors(pos, cell, torch.zeros(1, 3), torch.tensor([2, -1]), torch.tensor([0, 1, 2]))
