"""The blocked backend streams: no tensor of edges times heads or edges times basis, forward or backward."""

import pytest
import torch

from tests.ops.largest_result import LargestResult
from torch_geometric_crystal.ops import GaussianBasis, group_edges
from torch_geometric_crystal.ops.infinite_attention import row_blocks as row_blocks_module
from torch_geometric_crystal.ops.infinite_attention.blocked import backward_blocked, forward_blocked
from torch_geometric_crystal.ops.infinite_attention.row_blocks import row_blocks

ATOMS, EDGES, HEADS, HEAD_DIM, BASIS, SLOTS = 60, 24_000, 4, 4, 16, 500


@pytest.mark.parametrize("need_dist", [False, True], ids=["fixed atoms", "moving atoms"])
def test_blocked_temporaries_are_bounded_by_atoms_edges_and_the_block(monkeypatch, need_dist):
    monkeypatch.setattr(row_blocks_module, "SLOTS_PER_BLOCK", SLOTS)
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(ATOMS).repeat_interleave(EDGES // ATOMS)
    source = torch.randint(ATOMS, (EDGES,), generator=generator)
    dist = torch.rand(EDGES, generator=generator) * 8
    neighborhood = group_edges(torch.stack([source, target]), dist, ATOMS)
    query, key, value = (torch.randn(ATOMS, HEADS, HEAD_DIM, generator=generator) for _ in range(3))
    rho = torch.ones(ATOMS, HEADS)
    encoding = torch.randn(HEADS, HEAD_DIM, BASIS, generator=generator)
    basis = GaussianBasis(BASIS, 0.8)
    with LargestResult() as largest:
        out, lse, mean_basis = forward_blocked(
            query, key, value, rho, dist, row_blocks(neighborhood), 1.4, 0.5, encoding, basis
        )
        backward_blocked(
            out, lse, mean_basis, query, key, value, rho, dist, row_blocks(neighborhood), 1.4, 0.5, encoding, basis,
            out, lse, mean_basis, need_dist,
        )  # fmt: skip
    assert largest.numel <= max(EDGES, ATOMS * HEADS * BASIS, SLOTS * BASIS)
    assert largest.numel < EDGES * HEADS
