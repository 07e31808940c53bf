"""Reciprocal attention: against the reference, against real space (Poisson), and its own gradients."""

import math

import pytest
import torch

from torch_geometric_crystal.ops import (
    WaveVectors,
    gather_wave_vectors,
    group_edges,
    infinite_attention,
    reciprocal_attention,
)
from torch_geometric_crystal.ops.reciprocal_attention import crystal_blocks as crystal_blocks_module
from torch_geometric_crystal.ops.reciprocal_attention.crystal_blocks import crystal_blocks
from torch_geometric_crystal.ops.reciprocal_attention.registered import (
    reciprocal_attention_backward_op,
    reciprocal_attention_op,
)

HEADS, HEAD_DIM = 3, 4


def half_space(reach):
    """(0, 0, 0) and one of each pair m, -m of integer triples with entries up to `reach`."""
    axis = torch.arange(-reach, reach + 1)
    triples = torch.cartesian_prod(axis, axis, axis)
    code = triples @ torch.tensor([(4 * reach) ** 2, 4 * reach, 1])
    return triples[code >= 0][code[code >= 0].argsort()]


def random_waves(num_atoms=(1, 5, 3, 7), reaches=(1, 1, 2, 1), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cell = torch.eye(3, dtype=dtype) * 4 + torch.rand(len(num_atoms), 3, 3, generator=generator, dtype=dtype)
    pos = torch.rand(sum(num_atoms), 3, generator=generator, dtype=dtype) * 6
    vectors = [half_space(reach) for reach in reaches]
    ptr = torch.tensor([0, *num_atoms]).cumsum(0)
    counts = torch.tensor([len(v) for v in vectors])
    return gather_wave_vectors(pos, cell, torch.cat(vectors), counts, ptr)


def random_inputs(num_nodes, dtype=torch.float64, seed=0, heads=HEADS, head_dim=HEAD_DIM):
    generator = torch.Generator().manual_seed(seed)
    qkv = [torch.randn(num_nodes, heads, head_dim, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]
    sigma_sq = (torch.rand(num_nodes, heads, generator=generator, dtype=dtype) + 1.0).requires_grad_()
    return (*qkv, sigma_sq)


def leaf(waves):
    return WaveVectors(
        waves.pos.detach().requires_grad_(), waves.vector.detach().requires_grad_(), *(t.detach() for t in waves[2:])
    )


@pytest.mark.parametrize("terms", [1, 60, 100_000], ids=["row by row", "several blocks", "one block"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_blocked_agrees_with_reference_in_output_and_every_gradient(monkeypatch, terms, dtype, tolerance):
    monkeypatch.setattr(crystal_blocks_module, "TERMS_PER_BLOCK", terms)
    waves = leaf(random_waves(dtype=dtype))
    expected_blocks = {1: 16, 100_000: 1}
    if terms in expected_blocks:
        assert len(list(crystal_blocks(waves))) == expected_blocks[terms]
    inputs = random_inputs(16, dtype)
    results = {}
    for backend in ("blocked", "reference"):
        out, lse = reciprocal_attention(*inputs, waves, backend=backend)
        loss = (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum() + lse.square().sum()
        results[backend] = [out, lse, *torch.autograd.grad(loss, [*inputs, waves.pos, waves.vector])]
    for fast, plain in zip(results["blocked"], results["reference"], strict=True):
        assert (fast - plain).abs().max() <= tolerance * plain.abs().max()


def test_blocked_gradients_pass_gradcheck_twice():
    waves = random_waves((1, 3), (1, 1))
    few = torch.cat([waves.vector[:4], waves.vector[14:19]])
    waves = leaf(waves._replace(vector=few, wave_ptr=torch.tensor([0, 4, 9])))
    inputs = random_inputs(4, heads=2, head_dim=2)

    def outputs(query, key, value, sigma_sq, pos, vector):
        return reciprocal_attention(query, key, value, sigma_sq, waves._replace(pos=pos, vector=vector))

    arguments = (*inputs, waves.pos, waves.vector)
    assert torch.autograd.gradcheck(outputs, arguments, atol=1e-7)
    assert torch.autograd.gradgradcheck(outputs, arguments, atol=1e-6)


def test_real_and_reciprocal_space_give_the_same_number():
    """Poisson summation: the two domains agree to 1e-10 in output and log-sum-exp, at the same width."""
    cell = torch.tensor([[[3.1, 0.2, 0.0], [1.2, 2.9, 0.3], [-0.5, 0.7, 3.4]]], dtype=torch.float64)
    pos = torch.tensor([[0.1, 0.2, 0.3], [1.4, 1.1, 2.0], [2.5, 0.3, 1.2]], dtype=torch.float64)
    query, key, value, _ = random_inputs(3)
    sigma = 1.3
    images = torch.cartesian_prod(*[torch.arange(-7.0, 8.0, dtype=torch.float64)] * 3) @ cell[0]
    dist = (pos[None, :, None] + images - pos[:, None, None]).norm(dim=-1)  # (i, j, n)
    target, source = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    edge_index = torch.stack([source, target]).unsqueeze(-1).expand(2, 3, 3, len(images)).reshape(2, -1)
    rho = torch.full((3, HEADS), 1.4**2 / sigma**2, dtype=torch.float64)
    real, real_lse = infinite_attention(query, key, value, rho, group_edges(edge_index, dist.flatten(), 3), r0=1.4)

    vectors = half_space(6)
    waves = gather_wave_vectors(pos, cell, vectors, torch.tensor([len(vectors)]), torch.tensor([0, 3]))
    sigma_sq = torch.full((3, HEADS), sigma**2, dtype=torch.float64)
    reciprocal, reciprocal_lse = reciprocal_attention(query, key, value, sigma_sq, waves, floor=0.0)
    torch.testing.assert_close(reciprocal, real, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(reciprocal_lse, real_lse, rtol=1e-10, atol=1e-10)


def test_no_gradient_flows_through_a_sum_at_the_floor():
    """Two atoms far apart under a narrow Gaussian: their S is below the floor, and does not move with the positions."""
    cell = torch.eye(3, dtype=torch.float64).unsqueeze(0) * 20
    pos = torch.tensor([[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]], dtype=torch.float64, requires_grad=True)
    vectors = half_space(10)
    waves = gather_wave_vectors(pos, cell, vectors, torch.tensor([len(vectors)]), torch.tensor([0, 2]))
    query, key, value, _ = random_inputs(2)
    sigma_sq = torch.full((2, HEADS), 1.5**2, dtype=torch.float64)
    for backend in ("blocked", "reference"):
        out, _ = reciprocal_attention(query, key, value, sigma_sq, waves, backend=backend)
        (force,) = torch.autograd.grad(out.sum(), pos, retain_graph=True)
        assert force.abs().max() < 1e-30  # the self term, S = sum of cosines of zero, rounds to this


def test_constants_of_the_row_reach_the_log_sum_exp_alone():
    waves = random_waves()
    inputs = random_inputs(16)
    out, lse = reciprocal_attention(*inputs, waves)
    bigger = waves._replace(log_volume=waves.log_volume + math.log(2.0))
    out_bigger, lse_bigger = reciprocal_attention(*inputs, bigger)
    assert torch.equal(out, out_bigger)
    torch.testing.assert_close(lse - lse_bigger, torch.full_like(lse, math.log(2.0)))


def test_operators_pass_opcheck():
    waves = leaf(random_waves((2, 3), (1, 1)))
    inputs = random_inputs(5)
    arguments = (*inputs, *waves[:4], "blocked", 0.5, 1e-6)
    torch.library.opcheck(reciprocal_attention_op, arguments)
    detached = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    outputs = reciprocal_attention_op(*detached)
    torch.library.opcheck(
        reciprocal_attention_backward_op, (*outputs, *detached[:8], *outputs, "blocked", 0.5, 1e-6, True)
    )  # fmt: skip


def test_door_refuses_bad_arguments_by_name():
    waves = random_waves()
    query, key, value, sigma_sq = random_inputs(16)
    with pytest.raises(ValueError, match=r"value: expected shape \(16, 3, 4\), received \(16, 3, 2\)"):
        reciprocal_attention(query, key, value[..., :2], sigma_sq, waves)
    with pytest.raises(
        ValueError, match=r"sigma_sq: expected torch.float64, beside a query of torch.float64, received torch.float32"
    ):
        reciprocal_attention(query, key, value, sigma_sq.float(), waves)
    cell = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    with pytest.raises(ValueError, match="num_wave_vectors: expected a sum of 2, received 4"):
        gather_wave_vectors(waves.pos, cell, torch.zeros(2, 3), torch.ones(4, dtype=torch.long), waves.atom_ptr)
    with pytest.raises(ValueError, match=r"wave_vector: expected \(0, 0, 0\) first in every crystal"):
        gather_wave_vectors(waves.pos, cell, torch.ones(4, 3), torch.ones(4, dtype=torch.long), waves.atom_ptr)
    with pytest.raises(ValueError, match=r"cell: expected shape \(4, 3, 3\), received \(3, 3, 3\)"):
        gather_wave_vectors(waves.pos, cell[1:], torch.zeros(4, 3), torch.ones(4, dtype=torch.long), waves.atom_ptr)
