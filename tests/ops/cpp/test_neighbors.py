import importlib

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from tests.crystals import random_crystals
from tests.ops.test_neighbor_search import collate, found
from torch_geometric_crystal.ops.neighbor_search import neighbor_pieces, neighbor_search
from torch_geometric_crystal.ops.prepared_search import prepare_search

pytestmark = pytest.mark.usefixtures("with_kernels")
module = importlib.import_module("torch_geometric_crystal.ops.neighbor_search")


@pytest.fixture
def both():
    """A function: what a call gives with the kernels and without them."""

    def run(function):
        with_them = function()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_has_kernels", lambda search: False)
            return with_them, function()

    assert module.extension.why_unavailable() is None
    return run


def assert_same(fast, plain):
    assert torch.equal(fast.edge_index, plain.edge_index)
    assert torch.equal(fast.edge_shift, plain.edge_shift)
    assert fast.edge_dist.dtype == plain.edge_dist.dtype
    torch.testing.assert_close(fast.edge_dist, plain.edge_dist)


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(random_crystals(), min_size=1, max_size=4),
    st.lists(st.floats(0.0, 8.0), min_size=4, max_size=4),
    st.booleans(),
)
def test_the_kernel_finds_the_edges_of_pure_torch(both, crystals, cutoffs, self_images):
    radii = torch.tensor(cutoffs[: len(crystals)], dtype=torch.float64)
    tensors = collate([(crystal.pos, crystal.cell, crystal.pbc) for crystal in crystals])
    fast, plain = both(lambda: neighbor_search(*tensors, radii, self_images))
    apart = (plain.edge_dist - radii[tensors[2][plain.edge_index[1]]]).abs()
    assume(not ((apart < 1e-12) & (plain.edge_dist > 0)).any())  # rounding decides what lies at the cutoff
    assert found(fast) == found(plain)
    assert torch.equal(fast.edge_index, plain.edge_index)
    torch.testing.assert_close(fast.edge_dist, plain.edge_dist, rtol=1e-14, atol=0.0)
    same_pair = (fast.edge_index[:, 1:] == fast.edge_index[:, :-1]).all(dim=0)
    assert (fast.edge_dist.diff()[same_pair] >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_distances_have_the_dtype_that_is_asked_for(both, dtype):
    generator = torch.Generator().manual_seed(0)
    cell = torch.eye(3) * 7.0 + torch.rand(3, 3, generator=generator)
    tensors = collate([(torch.rand(30, 3, generator=generator) @ cell, cell, (True, True, True))], dtype)
    fast, plain = both(lambda: neighbor_search(*tensors, 5.0))
    assert fast.edge_dist.dtype == dtype
    if dtype == torch.float16:  # ties after rounding: the kernel sorts before it
        assert fast.edge_dist.sort().values.equal(plain.edge_dist.sort().values)
    else:
        assert_same(fast, plain)


def test_pieces_and_threads_change_nothing(both, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    cell = torch.eye(3) * 14.0
    tensors = collate([(torch.rand(300, 3, generator=generator) @ cell, cell, (True, False, True))])
    whole = neighbor_search(*tensors, 4.0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert_same(neighbor_search(*tensors, 4.0), whole)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setitem(module.PIECE, "cpp", 400)
    pieces = [edges for _, _, edges in neighbor_pieces(prepare_search(*tensors, 4.0), 1000, torch.float64)]
    assert len(pieces) > 3
    assert torch.equal(torch.cat([edges.edge_index for edges in pieces], dim=1), whole.edge_index)
    assert torch.equal(torch.cat([edges.edge_dist for edges in pieces]), whole.edge_dist)


def test_a_distance_is_the_same_in_both_directions_to_the_last_bit():
    generator = torch.Generator().manual_seed(4)
    cell = torch.randn(3, 3, generator=generator, dtype=torch.float64) + 5.0 * torch.eye(3, dtype=torch.float64)
    tensors = collate([(torch.rand(20, 3, generator=generator).double() @ cell, cell, (True, True, True))])
    edges = neighbor_search(*tensors, 6.0)
    there = torch.cat([edges.edge_index.T, edges.edge_shift], dim=1).tolist()
    dist = {tuple(edge): length for edge, length in zip(there, edges.edge_dist.tolist(), strict=True)}
    for (source, target, *shift), length in dist.items():
        assert dist[(target, source, *(-n for n in shift))] == length
