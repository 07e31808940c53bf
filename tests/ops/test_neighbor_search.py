import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.crystals import random_crystals, real_crystals
from tests.ops.largest_result import LargestResult
from torch_geometric_crystal.data.neighbors import neighbor_list
from torch_geometric_crystal.ops import atom_bins, prepared_search
from torch_geometric_crystal.ops.lattice import edge_vectors
from torch_geometric_crystal.ops.neighbor_search import neighbor_search

module = importlib.import_module("torch_geometric_crystal.ops.neighbor_search")
bins_near = module._bins_near

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
YES, NO = (True, True, True), (False, False, False)


def collate(crystals, dtype=torch.float64):
    """Positions, cells, batch and periodic directions of (pos, cell, pbc)."""
    counts = torch.tensor([len(pos) for pos, _, _ in crystals])
    pos = torch.cat([torch.as_tensor(pos, dtype=torch.float64).reshape(-1, 3) for pos, _, _ in crystals])
    cell = torch.stack([torch.as_tensor(cell, dtype=torch.float64) for _, cell, _ in crystals])
    pbc = torch.stack([torch.as_tensor(pbc) for _, _, pbc in crystals])
    return pos.to(dtype), cell.to(dtype), torch.arange(len(crystals)).repeat_interleave(counts), pbc


def as_set(target, source, shift):
    return set(map(tuple, np.column_stack([target, source, shift]).tolist()))


def found(edges):
    rows = as_set(edges.edge_index[1].cpu(), edges.edge_index[0].cpu(), edges.edge_shift.cpu())
    assert len(rows) == edges.edge_dist.numel()
    return rows


def expected(crystals, cutoffs):
    """The same from the compiled search of each crystal alone; None where a distance is that of the cutoff."""
    rows, first = set(), 0
    for (pos, cell, pbc), cutoff in zip(crystals, cutoffs, strict=True):
        target, source, shift, dist = neighbor_list(pos, cell, np.asarray(pbc), cutoff + 1e-6)
        if (abs(dist - cutoff) < 1e-9).any():
            return None
        near = dist <= cutoff
        rows |= as_set(target[near] + first, source[near] + first, shift[near])
        first += len(pos)
    return rows


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(random_crystals(), min_size=1, max_size=4), st.lists(st.floats(0.0, 8.0), min_size=4, max_size=4))
def test_a_batch_has_the_edges_of_the_compiled_search(device, crystals, cutoffs):
    crystals, cutoffs = [(c.pos, c.cell, c.pbc) for c in crystals], cutoffs[: len(crystals)]
    rows = expected(crystals, cutoffs)
    assume(rows is not None)
    pos, cell, batch, pbc = (tensor.to(device) for tensor in collate(crystals))
    edges = neighbor_search(pos, cell, batch, pbc, torch.tensor(cutoffs, dtype=torch.float64), self_images=False)
    assert found(edges) == rows
    vectors = edge_vectors(pos, cell, edges.edge_index, edges.edge_shift, batch)
    torch.testing.assert_close(vectors.norm(dim=1), edges.edge_dist, rtol=0, atol=1e-9)
    keys = list(zip(*edges.edge_index.flip(0).tolist(), edges.edge_dist.tolist(), strict=True))
    assert keys == sorted(keys)


@pytest.fixture(scope="module")
def real():
    return [(pos, cell, YES) for pos, cell in real_crystals(step=150)]


@pytest.mark.parametrize("cutoff", [5.0, 11.0])
def test_real_crystals_have_the_edges_of_the_compiled_search(real, cutoff):
    rows = expected(real, [cutoff] * len(real))
    assert rows is not None
    assert found(neighbor_search(*collate(real), cutoff, self_images=False)) == rows


def test_single_precision_distances_are_the_rounded_double_precision_ones(real):
    pos, cell, batch, pbc = collate(real, torch.float32)
    single = neighbor_search(pos, cell, batch, pbc, 9.0)
    double = neighbor_search(pos.double(), cell.double(), batch, pbc, 9.0)
    assert single.edge_dist.dtype == torch.float32
    assert found(single) == found(double)
    order = [edges.edge_dist.argsort(stable=True) for edges in (single, double)]
    assert torch.equal(single.edge_dist[order[0]], double.edge_dist[order[1]].float())


def test_positions_far_outside_the_cell_keep_their_distances(real):
    pos, cell, batch, pbc = collate(real[:8])
    images = torch.randint(-500, 501, pos.shape, generator=torch.Generator().manual_seed(0)).double()
    moved = pos + torch.einsum("na,nab->nb", images, cell[batch])
    near, far = (neighbor_search(p, cell, batch, pbc, 6.2) for p in (pos, moved))
    assert torch.equal(far.edge_index, near.edge_index)
    torch.testing.assert_close(far.edge_dist, near.edge_dist, rtol=0, atol=1e-10)
    vectors = edge_vectors(moved, cell, far.edge_index, far.edge_shift, batch)
    torch.testing.assert_close(vectors.norm(dim=1), far.edge_dist, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_edge_and_its_reverse_have_the_same_bits(real, dtype):
    edges = neighbor_search(*collate(real, dtype), 6.0)
    (source, target), shift = edges.edge_index, edges.edge_shift.long()
    dist = dict(
        zip(map(tuple, torch.stack([target, source, *shift.T], 1).tolist()), edges.edge_dist.tolist(), strict=True)
    )
    reverse = map(tuple, torch.stack([source, target, *-shift.T], 1).tolist())
    assert [dist[key] for key in reverse] == edges.edge_dist.tolist()


def test_the_pieces_decide_nothing(real, monkeypatch):
    whole = neighbor_search(*collate(real), 7.0)
    calls = []
    monkeypatch.setitem(module.PIECE, "cpu", 300)
    monkeypatch.setattr(module, "_bins_near", lambda *a: calls.append(a) or bins_near(*a))
    small = neighbor_search(*collate(real), 7.0)
    assert len(calls) > 50
    assert all(torch.equal(a, b) for a, b in zip(whole, small, strict=True))


def test_a_crystal_has_the_same_bits_in_every_batch(real):
    together = neighbor_search(*collate(real[:10]), 6.0)
    first, start = 0, 0
    for crystal in real[:10]:
        alone = neighbor_search(*collate([crystal]), 6.0)
        part = slice(start, start + alone.edge_dist.numel())
        assert torch.equal(together.edge_index[:, part] - first, alone.edge_index)
        assert torch.equal(together.edge_shift[part], alone.edge_shift)
        assert torch.equal(together.edge_dist[part], alone.edge_dist)
        first, start = first + len(crystal[0]), part.stop
    assert start == together.edge_dist.numel()


def test_crystals_of_very_different_size_may_share_a_batch():
    rng = np.random.default_rng(0)
    crystals = [
        (np.zeros((1, 3)), 2.2 * np.eye(3), YES),
        (rng.random((700, 3)) * 21.0, 21.0 * np.eye(3), YES),
        (rng.random((2, 3)), np.eye(3), NO),
        (rng.random((40, 3)) * [3.0, 3.0, 90.0], np.diag([3.0, 3.0, 90.0]), (True, True, False)),
    ]
    cutoffs = [9.0, 3.1, 0.3, 5.0]
    edges = neighbor_search(*collate(crystals), torch.tensor(cutoffs), self_images=False)
    assert found(edges) == expected(crystals, cutoffs)


def test_a_large_cell_is_cut_into_bins_and_streamed(monkeypatch):
    rng = np.random.default_rng(0)
    pos, cell = rng.random((3000, 3)) * 40.0, 40.0 * np.eye(3)
    plans = []
    monkeypatch.setattr(prepared_search, "plan_bins", lambda *a: plans.append(atom_bins.plan_bins(*a)) or plans[-1])
    inputs = collate([(pos, cell, YES)])
    with LargestResult() as largest:
        edges = neighbor_search(*inputs, 4.0, self_images=False)
    assert plans[0].number.tolist() == [[11, 11, 11]]
    assert found(edges) == expected([(pos, cell, YES)], [4.0])
    assert largest.numel <= 3 * max(module.PIECE["cpu"], edges.edge_dist.numel())


def test_cutoff_is_inclusive():
    cube = [(np.zeros((1, 3)), 2.0 * np.eye(3), YES)]
    assert neighbor_search(*collate(cube), 2.0).edge_dist.tolist() == [0.0] + 6 * [2.0]
    assert neighbor_search(*collate(cube), math.nextafter(2.0, 0.0)).edge_dist.tolist() == [0.0]
    assert neighbor_search(*collate(cube), 0.0).edge_shift.tolist() == [[0, 0, 0]]


def test_only_the_atom_itself_counts_as_self_image():
    crystals = [([[0.1, 0.2, 0.3], [5.1, 0.2, 0.3]], 5.0 * np.eye(3), YES)]
    with_self = neighbor_search(*collate(crystals), 1.0)
    without = neighbor_search(*collate(crystals), 1.0, self_images=False)
    pair = {(0, 1, -1, 0, 0), (1, 0, 1, 0, 0)}
    assert found(without) == pair
    assert found(with_self) == pair | {(0, 0, 0, 0, 0), (1, 1, 0, 0, 0)}


def test_atoms_of_a_molecule_may_be_very_far_apart():
    pos = np.array([[0.0, 0, 0], [1e6, 0, 0], [1e6, 1.5, 0], [0, 0, -3e7]])
    edges = neighbor_search(*collate([(pos, np.eye(3), NO)]), 5.0, self_images=False)
    assert edges.edge_index.tolist() == [[2, 1], [1, 2]]
    assert edges.edge_dist.tolist() == [1.5, 1.5]


def test_a_batch_may_have_no_edges_no_atoms_or_crystals_without_atoms():
    lonely = (np.zeros((1, 3)), 9.0 * np.eye(3), YES)
    none = (np.zeros((0, 3)), np.eye(3), YES)
    assert neighbor_search(*collate([lonely, lonely]), 2.0, self_images=False).edge_index.shape == (2, 0)
    empty = neighbor_search(*collate([none]), 2.0)
    assert (empty.edge_index.shape, empty.edge_shift.shape, empty.edge_dist.shape) == ((2, 0), (0, 3), (0,))
    mixed = neighbor_search(*collate([none, lonely, none, none, lonely, none]), 2.0)
    assert mixed.edge_index.tolist() == [[0, 1], [0, 1]]


class Waits(TorchDispatchMode):
    """Counts the operations that make the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.number += name in {"nonzero", "_local_scalar_dense", "_unique2", "unique_dim", "masked_select", "bincount"}
        return function(*args, **(kwargs or {}))


def test_the_host_reads_the_device_no_more_often_for_a_larger_batch(real, monkeypatch):
    monkeypatch.setitem(module.PIECE, "cpu", module.PIECE["gpu"])
    numbers = []
    for crystals in (real[:1], real):
        with Waits() as waits:
            neighbor_search(*collate(crystals), 6.0)
        numbers.append(waits.number)
    assert numbers == [3, 3]  # and one copy to the host, in _read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": torch.zeros(2, 2)}, r"pos: expected shape \(\*, 3\)"),
        ({"pos": torch.tensor([[math.nan, 0, 0], [0, 0, 0]])}, "pos: expected finite numbers"),
        ({"cell": torch.eye(3)}, r"cell: expected shape \(\*, 3, 3\)"),
        ({"cell": torch.full((2, 3, 3), math.inf)}, "cell: expected finite numbers"),
        ({"cell": torch.ones(2, 3, 3)}, r"cell: expected linearly independent vectors .*crystal 0 of the batch"),
        ({"batch": torch.zeros(3, dtype=torch.long)}, r"batch: expected shape \(2\)"),
        ({"batch": torch.tensor([1, 0])}, r"batch: expected crystals 0 \.\. 1 in ascending order"),
        ({"batch": torch.tensor([0, 2])}, r"batch: expected crystals 0 \.\. 1 in ascending order"),
        ({"pbc": torch.ones(1, 3, dtype=torch.bool)}, r"pbc: expected shape \(2, 3\)"),
        ({"cutoff": -1.0}, r"cutoff: expected finite lengths >= 0 in A, received \[-1\.0, -1\.0\]"),
        ({"cutoff": torch.tensor([1.0, math.inf])}, r"cutoff: expected finite lengths >= 0 in A, received \[inf\]"),
        ({"cutoff": torch.ones(3)}, r"cutoff: expected shape \(2\)"),
    ],
)
def test_what_cannot_be_searched_is_refused(change, message):
    arguments = {
        "pos": torch.zeros(2, 3),
        "cell": torch.eye(3).repeat(2, 1, 1),
        "batch": torch.tensor([0, 1]),
        "pbc": torch.ones(2, 3, dtype=torch.bool),
        "cutoff": 1.0,
    }
    neighbor_search(**arguments)
    with pytest.raises(ValueError, match=message):
        neighbor_search(**arguments | change)
