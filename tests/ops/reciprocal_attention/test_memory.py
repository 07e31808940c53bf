"""The blocked reciprocal sum streams: no tensor of atoms times atoms times waves, forward or backward."""

import torch

from tests.ops.largest_result import LargestResult
from torch_geometric_crystal.ops import WaveVectors
from torch_geometric_crystal.ops.reciprocal_attention import crystal_blocks as crystal_blocks_module
from torch_geometric_crystal.ops.reciprocal_attention.blocked import backward_blocked, forward_blocked

ATOMS, WAVES, HEADS, HEAD_DIM, TERMS = 120, 150, 2, 4, 3000


def test_blocked_temporaries_are_bounded_by_the_block(monkeypatch):
    monkeypatch.setattr(crystal_blocks_module, "TERMS_PER_BLOCK", TERMS)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(WAVES, 3, generator=generator)
    vector[0] = 0
    waves = WaveVectors(
        torch.rand(ATOMS, 3, generator=generator) * 10, vector,
        torch.tensor([0, ATOMS]), torch.tensor([0, WAVES]), torch.zeros(1),
    )  # fmt: skip
    query, key, value = (torch.randn(ATOMS, HEADS, HEAD_DIM, generator=generator) for _ in range(3))
    sigma_sq = torch.ones(ATOMS, HEADS)
    with LargestResult() as largest:
        out, lse = forward_blocked(query, key, value, sigma_sq, waves, 0.5, 1e-6)
        backward_blocked(out, lse, query, key, value, sigma_sq, waves, 0.5, 1e-6, out, lse, need_pos=True)
    assert largest.numel <= max(2 * HEADS * TERMS, 2 * ATOMS * WAVES)
    assert largest.numel < ATOMS * ATOMS * WAVES / 50
