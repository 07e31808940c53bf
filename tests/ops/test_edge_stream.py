import importlib

import pytest
import torch
from torch.autograd import gradcheck

from tests.ops.test_neighbor_search import collate
from torch_geometric_crystal.ops import GaussianBasis, group_edges, infinite_attention, use_backend
from torch_geometric_crystal.ops.edge_stream import EdgeStream
from torch_geometric_crystal.ops.lattice import edge_vectors, vector_lengths
from torch_geometric_crystal.ops.neighbor_search import neighbor_pieces, neighbor_search
from torch_geometric_crystal.ops.prepared_search import prepare_search
from torch_geometric_crystal.ops.streamed_attention import streamed_attention

search_module = importlib.import_module("torch_geometric_crystal.ops.neighbor_search")

HEADS, WIDTH, BASIS = 2, 3, GaussianBasis(8, 0.6)


def crystals():
    """A large cell of random order, a cell smaller than the cutoff, a slab, a molecule and a lone atom."""
    generator = torch.Generator().manual_seed(3)
    several = []
    for number, length, pbc in [(40, 9.0, (1, 1, 1)), (2, 2.5, (1, 1, 1)), (5, 6.0, (1, 1, 0)), (3, 4.0, (0, 0, 0))]:
        cell = torch.eye(3) * length + torch.rand(3, 3, generator=generator)
        several.append((torch.rand(number, 3, generator=generator) @ cell, cell, torch.tensor(pbc, dtype=torch.bool)))
    lone = (torch.zeros(1, 3), torch.eye(3), torch.zeros(3, dtype=torch.bool))
    return collate([*several, lone])


CUTOFFS = torch.tensor([4.0, 5.5, 4.5, 3.0, 2.0], dtype=torch.float64)


@pytest.fixture(params=[40, 700, 2**17], ids=lambda piece: f"piece={piece}")
def small_pieces(request, monkeypatch):
    monkeypatch.setitem(search_module.PIECE, "cpu", request.param)


def inputs(num_atoms, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    q, k, v = torch.randn(3, num_atoms, HEADS, WIDTH, generator=generator, dtype=torch.float64)
    rho = 0.5 + torch.rand(num_atoms, HEADS, generator=generator, dtype=torch.float64)
    encoding = torch.randn(HEADS, WIDTH, BASIS.num, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype).requires_grad_() for tensor in (q, k, v, rho, encoding)]


def differentiable_crystals(dtype=torch.float64):
    pos, cell, batch, pbc = crystals()
    return pos.to(dtype).requires_grad_(), cell.to(dtype).requires_grad_(), batch, pbc


def stored(pos, cell, batch, pbc, tensors, with_encoding):
    """The same sum over edges that are all there at once."""
    edges = neighbor_search(pos, cell, batch, pbc, CUTOFFS)
    dist = vector_lengths(edge_vectors(pos, cell, edges.edge_index, edges.edge_shift, batch))
    *features, encoding = tensors
    encoded = {"value_encoding": encoding, "basis": BASIS} if with_encoding else {}
    return infinite_attention(*features, group_edges(edges.edge_index, dist, len(pos)), **encoded)


def streamed(pos, cell, batch, pbc, tensors, with_encoding, at_once=200):
    *features, encoding = tensors
    encoded = {"value_encoding": encoding, "basis": BASIS} if with_encoding else {}
    return streamed_attention(*features, EdgeStream(pos, cell, batch, pbc, CUTOFFS, at_once), **encoded)


def test_pieces_together_are_the_whole_search_and_each_but_the_last_is_full(small_pieces):
    pos, cell, batch, pbc = crystals()
    whole = neighbor_search(pos, cell, batch, pbc, CUTOFFS)
    pieces = list(neighbor_pieces(prepare_search(pos, cell, batch, pbc, CUTOFFS), 300, pos.dtype))
    assert [first for first, _, _ in pieces] == [0, *(last for _, last, _ in pieces[:-1])]
    assert pieces[-1][1] == len(pos)
    assert all(edges.edge_dist.numel() >= 300 for _, _, edges in pieces[:-1])
    for first, last, edges in pieces:
        assert edges.edge_index[1].min() == first
        assert edges.edge_index[1].max() == last - 1  # each atom is its own neighbour
    assert torch.equal(torch.cat([edges.edge_index for _, _, edges in pieces], dim=1), whole.edge_index)
    assert torch.equal(torch.cat([edges.edge_shift for _, _, edges in pieces]), whole.edge_shift)
    assert torch.equal(torch.cat([edges.edge_dist for _, _, edges in pieces]), whole.edge_dist)


def test_a_stream_has_every_edge_once_and_only_atoms_that_edges_join(small_pieces):
    pos, cell, batch, pbc = crystals()
    whole = neighbor_search(pos, cell, batch, pbc, CUTOFFS)
    expected = set(map(tuple, torch.cat([whole.edge_index.T, whole.edge_shift], dim=1).tolist()))
    stream, seen = EdgeStream(pos, cell, batch, pbc, CUTOFFS, 100), []
    for piece in stream.pieces():
        assert piece.edges.edge_index.unique().numel() == piece.atoms.numel()
        targets = torch.arange(piece.atoms.numel())[piece.rows]
        assert torch.equal(piece.edges.edge_index[1].unique(), targets)
        torch.testing.assert_close(stream.distances(piece, pos[piece.atoms], cell), piece.edges.edge_dist)
        seen += torch.cat([piece.atoms[piece.edges.edge_index].T, piece.edges.edge_shift], dim=1).tolist()
    assert len(seen) == len(expected)
    assert set(map(tuple, seen)) == expected


def test_a_stream_without_atoms_has_no_pieces():
    empty = torch.zeros(0, 3), torch.zeros(0, 3, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3).bool()
    stream = EdgeStream(*empty, torch.zeros(0))
    assert stream.num_rows == 0
    assert list(stream.pieces()) == []


@pytest.mark.parametrize("with_encoding", [True, False])
def test_outputs_and_gradients_are_those_of_stored_edges(small_pieces, with_encoding):
    results = []
    for run in (stored, streamed):
        pos, cell, batch, pbc = differentiable_crystals()
        tensors = inputs(len(pos))
        with use_backend("reference" if run is stored else "auto"):
            out, lse = run(pos, cell, batch, pbc, tensors, with_encoding)
        (out.sin().sum() + lse.square().sum()).backward()
        gradients = [tensor.grad for tensor in (*tensors[: None if with_encoding else -1], pos, cell)]
        results.append((out.detach(), lse.detach(), *gradients))
    for expected, actual in zip(*results, strict=True):
        # Sums of some hundred terms in float64, of size up to some hundred.
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setitem(search_module.PIECE, "cpu", 700)
    pos, cell, batch, pbc = differentiable_crystals()
    tensors = inputs(len(pos))

    def function(*arguments):
        *tensors, pos, cell = arguments
        return streamed(pos, cell, batch, pbc, tensors, with_encoding=True)

    assert gradcheck(function, (*tensors, pos, cell), fast_mode=True)


def test_only_what_asks_for_a_gradient_has_one():
    pos, cell, batch, pbc = crystals()
    *features, encoding = (tensor.detach() for tensor in inputs(len(pos)))
    features[1].requires_grad_()
    out, lse = streamed(pos, cell, batch, pbc, [*features, encoding], with_encoding=True)
    (grad,) = torch.autograd.grad(lse.sum(), features[1])
    assert torch.isfinite(grad).all()
    assert grad.abs().max() > 0
    assert not torch.is_inference(out)


def test_a_training_step_is_the_same_to_the_last_bit_each_time(small_pieces):
    runs = []
    for _ in range(2):
        pos, cell, batch, pbc = differentiable_crystals(torch.float32)
        tensors = inputs(len(pos), torch.float32)
        out, _ = streamed(pos, cell, batch, pbc, tensors, with_encoding=True)
        out.square().sum().backward()
        runs.append([out.detach(), *(tensor.grad for tensor in (*tensors, pos, cell))])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_half_precision_is_storage_and_sums_are_in_float32():
    pos, cell, batch, pbc = crystals()
    query, key, value, rho, encoding = (tensor.detach() for tensor in inputs(len(pos), torch.float32))
    exact, _ = streamed(pos, cell, batch, pbc, [query, key, value, rho, encoding], with_encoding=True)
    rounded = [query.bfloat16(), key.bfloat16(), value.bfloat16(), rho, encoding]
    out, lse = streamed(pos, cell, batch, pbc, rounded, with_encoding=True)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)  # eight bits, and logits of size 3


def test_a_second_derivative_is_refused():
    pos, cell, batch, pbc = differentiable_crystals()
    out, _ = streamed(pos, cell, batch, pbc, inputs(len(pos)), with_encoding=True)
    (grad,) = torch.autograd.grad(out.square().sum(), pos, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()
