"""InfiniteNeighborhood with domain="auto": each crystal has edges or waves, and batches mix."""

import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.ops.domain_cost import cheaper_domain
from torch_geometric_crystal.transforms import InfiniteNeighborhood

COPPER = torch.tensor([[0.0, 1.8, 1.8], [1.8, 0.0, 1.8], [1.8, 1.8, 0.0]])
SIGMA_MIN = 1.2


def copper(pbc=(True, True, True)):
    return make_crystal([29], torch.zeros(1, 3).numpy(), COPPER.numpy(), pbc, structure_id="Cu")


def large():
    pos = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 9
    return make_crystal([14] * 40, pos.numpy(), torch.eye(3).numpy() * 9, (True, True, True), structure_id="large")


@pytest.fixture(scope="module")
def transform():
    return InfiniteNeighborhood(reciprocal_sigma_min=SIGMA_MIN, domain="auto")


def test_a_crystal_gets_edges_or_waves_as_the_costs_say(transform):
    for data, expected in ((copper(), "reciprocal"), (large(), "real")):
        volume = torch.linalg.det(data.cell[0]).abs().item()
        settings = (transform.sigma_max, SIGMA_MIN, transform.tol, transform.spread)
        assert cheaper_domain(data.num_nodes, volume, *settings) == expected
        graph = transform(data)
        assert (graph.edge_index.size(1) > 0) == (expected == "real")
        assert (graph.num_wave_vectors.item() > 0) == (expected == "reciprocal")


def test_what_is_there_equals_what_is_made_without_a_choice(transform):
    both = InfiniteNeighborhood(reciprocal_sigma_min=SIGMA_MIN)
    for data, fields in ((copper(), ("wave_vector", "wave_bound")), (large(), ("edge_index", "log_tail"))):
        chosen, full = transform(data.clone()), both(data.clone())
        for field in fields:
            assert torch.equal(chosen[field], full[field])


def test_the_other_domain_has_the_same_fields_without_members(transform):
    both = InfiniteNeighborhood(reciprocal_sigma_min=SIGMA_MIN)
    for data in (copper(), large()):
        chosen, full = transform(data.clone()), both(data.clone())
        assert set(chosen.keys()) == set(full.keys())
        for name, tensor in full.items():
            if isinstance(tensor, torch.Tensor):
                assert chosen[name].dtype == tensor.dtype, name
                assert chosen[name].dim() == tensor.dim(), name
    waves, edges = transform(copper()), transform(large())
    assert waves.truncation_bound.item() == waves.edge_cutoff.item() == 0.0
    assert bool((waves.log_tail == -torch.inf).all())
    assert edges.wave_bound.item() == edges.wave_cutoff.item() == 0.0


def test_a_mixed_batch_keeps_each_crystals_graph(transform):
    graphs = [transform(data) for data in (copper(), large(), copper())]
    batch = Batch.from_data_list(graphs)
    assert batch.num_wave_vectors.tolist() == [graphs[0].num_wave_vectors.item(), 0, graphs[2].num_wave_vectors.item()]
    assert torch.equal(batch.edge_index, graphs[1].edge_index + 1)


def test_a_slab_gets_edges(transform):
    graph = transform(copper(pbc=(True, True, False)))
    assert graph.edge_index.size(1) > 0
    assert graph.num_wave_vectors.item() == 0


def test_a_second_choice_replaces_the_first(transform):
    graph = InfiniteNeighborhood()(copper())
    assert transform(graph).edge_index.size(1) == 0


def test_door_and_repr():
    with pytest.raises(ValueError, match="domain: expected one of"):
        InfiniteNeighborhood(domain="cheap")
    for settings in ({}, {"reciprocal_sigma_min": 1.2, "real": False}, {"reciprocal_sigma_min": 2.5}):
        with pytest.raises(ValueError, match="domain: expected 'all' unless edges and waves can be made"):
            InfiniteNeighborhood(domain="auto", **settings)
    assert repr(InfiniteNeighborhood(reciprocal_sigma_min=1.2, domain="auto")).endswith("min=1.2, domain='auto')")
