"""Padding leaves a batch's outputs and gradients alone, and makes graphs that are valid in every field."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.graph_padding import GraphSizes, graph_sizes, pad_graph, padded_sizes
from torch_geometric_crystal.ops import group_edges
from torch_geometric_crystal.testing import assert_close_relative, small_crystals


def model_and_batch(domain, num_crystals=4):
    torch.manual_seed(0)
    model = Crystalformer(channels=16, num_blocks=2, num_heads=4, num_basis=8, domain=domain)
    transform = model.neighborhood(tol=1e-2)
    batch = Batch.from_data_list([transform(data) for data in small_crystals()[:num_crystals]])
    model(batch)
    return model, batch


@pytest.mark.parametrize("domain", ["real", "multihead"])
@pytest.mark.parametrize("extra", [0, 37])
def test_padding_changes_neither_outputs_nor_gradients(domain, extra):
    model, batch = model_and_batch(domain)
    graph = model.gather(batch)
    sizes = padded_sizes(graph_sizes(graph))
    padded = pad_graph(graph, GraphSizes(*(size + extra if size else 0 for size in sizes)))
    results = []
    for case in (graph, padded):
        out, pooled = model.predict(case)
        gradients = torch.autograd.grad(out[:4].square().sum(), list(model.parameters()))
        results.append([out[:4], pooled[:4], *gradients])
    for plain, other in zip(*results, strict=True):
        assert_close_relative(other, plain, rtol=2e-6)


def test_a_batch_whose_crystals_are_all_summed_over_waves_is_padded():
    torch.manual_seed(0)
    model = Crystalformer(channels=16, num_blocks=2, num_heads=4, num_basis=0, domain="auto")
    transform = model.neighborhood(tol=1e-2)
    batches = [transform(data) for data in small_crystals() if bool(data.get("pbc", torch.ones(1)).all())]
    batch = Batch.from_data_list([data for data in batches if data.num_edges == 0])
    assert batch.num_graphs > 0
    model(batch)
    graph = model.gather(batch)
    padded = pad_graph(graph, padded_sizes(graph_sizes(graph)))
    assert padded.z.numel() > graph.z.numel()
    expected, out = model.predict(graph)[0], model.predict(padded)[0]
    assert bool(out.isfinite().all())
    assert_close_relative(out[: batch.num_graphs], expected, rtol=2e-6)


@pytest.mark.parametrize("domain", ["real", "reciprocal", "multihead"])
def test_padded_batches_have_the_sizes_asked_for(domain):
    model, batch = model_and_batch(domain)
    graph = model.gather(batch)
    sizes = padded_sizes(graph_sizes(graph))
    padded = pad_graph(graph, sizes)
    assert graph_sizes(padded) == sizes
    assert padded.num_crystals == sizes.crystals
    assert (padded.ptr.diff() > 0).all()
    assert torch.equal(padded.batch, torch.arange(sizes.crystals).repeat_interleave(padded.ptr.diff()))
    if padded.waves is not None:
        assert (padded.waves.wave_ptr.diff() > 0).all()
        assert torch.equal(padded.waves.atom_ptr, padded.ptr)
        assert padded.waves.wave_ptr[-1] == sizes.waves


def test_padded_edges_are_grouped_like_all_others():
    model, batch = model_and_batch("real")
    graph = model.gather(batch)
    sizes = padded_sizes(graph_sizes(graph))
    padded = pad_graph(graph, sizes._replace(pairs=sizes.pairs + 50, edges=sizes.edges + 130)).neighborhood
    regrouped = group_edges(torch.stack([padded.source, padded.target()]), padded.dist, padded.num_rows)
    apart = padded.pair_ptr.numel() - regrouped.pair_ptr.numel()
    assert apart >= 50  # atoms of the padding have several pairs with themselves, which grouping would make one
    for field in ("dist", "source", "row_ptr", "pair_order"):
        assert torch.equal(getattr(padded, field), getattr(regrouped, field)), field
    edges = torch.arange(padded.dist.numel())
    assert torch.equal(padded.edge_pair[padded.pair_order], torch.bucketize(edges, padded.pair_ptr[1:], right=True))
    pairs = torch.arange(padded.pair_source.numel())
    assert torch.equal(padded.pair_target, torch.bucketize(pairs, padded.row_pair_ptr[1:], right=True))
    assert torch.equal(
        padded.pair_source[padded.column_pair], torch.bucketize(pairs, padded.column_ptr[1:], right=True)
    )
    assert torch.equal(padded.pair_source[padded.edge_pair], padded.source)
    assert padded.pair_ptr[-1] == padded.dist.numel()
    assert (padded.row_ptr.diff() > 0).all()
    assert (padded.pair_ptr.diff() > 0).all()
    added = padded.row_ptr.diff()[graph.z.numel() :]
    assert added.max() - added.min() <= 1 + int(padded.pair_ptr.diff()[graph.neighborhood.pair_source.numel() :].max())


counts = st.integers(1, 10**6)


@settings(max_examples=200, deadline=None)
@given(counts, counts, counts, counts, counts)
def test_rounded_sizes_hold_the_batch_and_waste_little(crystals, atoms, pairs, edges, waves):
    atoms = max(atoms, crystals)
    pairs = max(pairs, atoms)
    sizes = GraphSizes(atoms, crystals, pairs, max(edges, pairs), max(waves, crystals))
    rounded = padded_sizes(sizes)
    assert rounded.hold(sizes)
    assert not rounded.hold(GraphSizes(*(size * 4 for size in rounded)))
    assert all(new <= 20 + 1.9 * old for new, old in zip(rounded, sizes, strict=True))
    assert padded_sizes(GraphSizes(atoms, crystals, pairs, max(edges, pairs), 0)).waves == 0


def test_few_sizes_cover_many_batches():
    rounded = {padded_sizes(GraphSizes(size, 1, size, size, 0)).atoms for size in range(64, 128)}
    assert len(rounded) <= 9


def test_sizes_without_room_are_refused():
    model, batch = model_and_batch("real")
    graph = model.gather(batch)
    with pytest.raises(ValueError, match="sizes: expected room for GraphSizes"):
        pad_graph(graph, graph_sizes(graph))
