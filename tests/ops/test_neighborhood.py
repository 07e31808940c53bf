"""Grouping of edges by row and by pair."""

import pytest
import torch

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.ops import group_edges
from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.neighborhood import group, group_edges_op

NUM_NODES = 7


def random_edges(num_edges=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(NUM_NODES - 1, (2, num_edges), generator=generator)
    return edge_index, torch.rand(num_edges, generator=generator)


def sorted_by(edge_index, dist, *keys):
    order = torch.arange(dist.numel())
    for key in reversed(keys):
        values = {"target": edge_index[1], "source": edge_index[0], "dist": dist}[key]
        order = order[torch.argsort(values[order], stable=True)]
    return edge_index[:, order], dist[order]


@pytest.mark.parametrize(
    "keys", [(), ("target", "dist"), ("target", "source", "dist")], ids=["unsorted", "rows sorted", "pairs sorted"]
)
def test_rows_pairs_and_columns_hold_exactly_the_edges(keys):
    edge_index, dist = sorted_by(*random_edges(), *keys)
    graph = group_edges(edge_index, dist, NUM_NODES)
    expected = sorted(zip(*edge_index.tolist(), dist.tolist(), strict=True))
    by_rows = zip(graph.source.tolist(), graph.target().tolist(), graph.dist.tolist(), strict=True)
    by_pairs, by_columns = [], []
    for pair in range(graph.pair_source.numel()):
        ends = (int(graph.pair_source[pair]), int(graph.pair_target[pair]))
        edges = graph.pair_order[graph.pair_ptr[pair] : graph.pair_ptr[pair + 1]]
        by_pairs += [(*ends, d) for d in graph.dist[edges].tolist()]
        assert (graph.edge_pair[edges] == pair).all()
        assert graph.row_pair_ptr[ends[1]] <= pair < graph.row_pair_ptr[ends[1] + 1]
    for atom in range(NUM_NODES):
        pairs = graph.column_pair[graph.column_ptr[atom] : graph.column_ptr[atom + 1]]
        assert (graph.pair_source[pairs] == atom).all()
        by_columns += pairs.tolist()
    assert sorted(by_rows) == sorted(by_pairs) == expected
    assert sorted(by_columns) == list(range(graph.pair_source.numel()))
    assert len(set(zip(graph.pair_source.tolist(), graph.pair_target.tolist(), strict=True))) == len(by_columns)


def test_edges_sorted_by_pairs_are_not_moved():
    edge_index, dist = sorted_by(*random_edges(), "target", "source", "dist")
    graph = group_edges(edge_index, dist, NUM_NODES)
    assert torch.equal(graph.pair_order, torch.arange(60))
    assert torch.equal(graph.dist, dist)


def test_gradients_reach_the_distances_in_their_own_order():
    edge_index, dist = random_edges()
    dist.requires_grad_()
    graph = group_edges(edge_index, dist, NUM_NODES)
    (grad,) = torch.autograd.grad((graph.dist * graph.target()).sum(), dist)
    assert torch.equal(grad, edge_index[1].float())


def test_no_edges_make_empty_rows():
    graph = group_edges(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), 3)
    assert graph.row_ptr.tolist() == graph.row_pair_ptr.tolist() == graph.column_ptr.tolist() == [0, 0, 0, 0]
    assert graph.pair_ptr.tolist() == [0]


@pytest.mark.parametrize("keys", [(), ("target", "dist"), ("target", "source")])
@pytest.mark.parametrize("num_edges", [0, 1, 60, 5000])
@pytest.mark.usefixtures("with_kernels")
def test_compiled_grouping_is_the_same(num_edges, keys):
    edge_index, _ = sorted_by(*random_edges(num_edges), *keys)
    compiled = extension.load().group_edges(edge_index, NUM_NODES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "why_unavailable", lambda: "not here")
        expected = group(edge_index, NUM_NODES)
    assert len(compiled) == len(expected)
    for left, right in zip(compiled, expected, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("atom", [-1, NUM_NODES])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.usefixtures("with_kernels")
def test_compiled_grouping_refuses_an_atom_out_of_range(row, atom):
    edge_index, dist = random_edges()
    edge_index[row, 30] = atom
    assert extension.why_unavailable() is None
    with pytest.raises(ValueError, match=r"edge_index: expected atoms 0 \.\. 6"):
        group_edges(edge_index, dist, NUM_NODES)


@pytest.mark.parametrize("keys", [(), ("target", "source")], ids=["unsorted", "sorted"])
def test_operator_passes_opcheck(keys):
    edge_index, _ = sorted_by(*random_edges(), *keys)
    torch.library.opcheck(group_edges_op, (edge_index, NUM_NODES))


def test_grouping_compiles_into_one_graph():
    edge_index, dist = random_edges()
    compiled = torch.compile(lambda index, d: tuple(group_edges(index, d, NUM_NODES)), fullgraph=True, backend="eager")
    for left, right in zip(compiled(edge_index, dist), group_edges(edge_index, dist, NUM_NODES), strict=True):
        assert torch.equal(left, right)
