"""The tolerance that the user gives is kept by the model's output, and what the model reports is an upper bound."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.nn import truncation_report as truncation_report_module
from torch_geometric_crystal.nn.crystal_graph import gather_crystal_graph
from torch_geometric_crystal.nn.truncation_report import largest_logits, row_truncation_bound
from torch_geometric_crystal.testing import small_crystals

PERIODIC = (True, True, True)
TOLERANCES = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]


def tiny_and_skewed():
    generator = np.random.default_rng(3)
    tiny = np.eye(3) * 1.9
    skewed = np.array([[2.6, 0.0, 0.0], [2.2, 1.9, 0.0], [1.7, -1.6, 1.8]])
    flat = np.diag([2.1, 2.3, 19.0])
    named = {"tiny": ([29], tiny), "skewed": ([6, 8], skewed), "flat": ([14, 8, 8], flat)}
    return [
        make_crystal(z, generator.random((len(z), 3)) @ cell, cell, PERIODIC, structure_id=name, dtype=torch.float64)
        for name, (z, cell) in named.items()
    ]


def outputs(model, crystals, **options):
    transform = model.neighborhood(**options)
    batch = Batch.from_data_list([transform(data.clone()) for data in crystals])
    with torch.no_grad():
        return model(batch), model.truncation_report(batch)


@pytest.mark.parametrize("name", ["real_beta", "multihead_beta"])
def test_output_error_stays_below_three_times_the_tolerance(fixture_model, real_crystals, name):
    model = fixture_model(name).double()
    crystals = [*real_crystals(20, most_atoms=20), *tiny_and_skewed()]
    for data in crystals:
        data.y = None
    converged, _ = outputs(model, crystals, tol=1e-14)
    for tol in TOLERANCES:
        out, _ = outputs(model, crystals, tol=tol)
        assert float((out - converged).abs().max() / converged.abs().max()) < 3 * tol


def test_reported_bound_is_never_below_what_was_dropped(fixture_model):
    """The share of the edges of a far larger graph that lie beyond the cutoff, in every row of the first block."""
    model = fixture_model().double()
    attention = model.blocks[0].attention
    for data in small_crystals(torch.float64):
        near, far = model.neighborhood(cutoff=5.0)(data.clone()), model.neighborhood(cutoff=14.0)(data.clone())
        x = model.embedding(data.z - 1)
        _, (edge_index, weights) = attention(x, far.edge_index, far.edge_dist, return_attention_weights=True)
        dropped = weights * (far.edge_dist > near.edge_cutoff).unsqueeze(-1)
        share = torch.zeros(len(x), attention.heads, dtype=torch.float64).index_add(0, edge_index[1], dropped.detach())
        assert float(model.truncation_report(near)) >= float(share.max()) > 0


def test_largest_logits_are_those_of_the_crystals_own_atoms(monkeypatch):
    monkeypatch.setattr(truncation_report_module, "ROWS_AT_ONCE", 2)
    batch = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    query, key = (torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    logits = torch.einsum("ihd,jhd->ijh", query, key)
    expected = logits.masked_fill((batch.unsqueeze(1) != batch).unsqueeze(-1), -torch.inf).amax(1)
    torch.testing.assert_close(largest_logits(query, key, batch, 3), expected)


def test_report_stays_a_bound_where_logits_spread_far_beyond_the_allowance(fixture_model):
    """Keys and queries ten times larger: the true dropped share grows past tol, and the report stays above it."""
    model = fixture_model().double()
    attention = model.blocks[0].attention
    with torch.no_grad():
        attention.qkv.weight[:256] *= 10
    data = small_crystals(torch.float64)[-1]
    near, far = model.neighborhood(cutoff=4.0)(data.clone()), model.neighborhood(cutoff=14.0)(data.clone())
    x = model.embedding(data.z - 1)
    _, (edge_index, weights) = attention(x, far.edge_index, far.edge_dist, return_attention_weights=True)
    dropped = (weights * (far.edge_dist > near.edge_cutoff).unsqueeze(-1)).detach()
    share = torch.zeros(len(x), attention.heads, dtype=torch.float64).index_add(0, edge_index[1], dropped)
    graph = gather_crystal_graph(near, torch.float64, True, False, model._basis)
    _, rows = model.blocks[0](x, graph)
    bound = row_truncation_bound(rows, near, graph.batch, 1.4, 0.5)
    assert float(rows.query.detach().norm(dim=-1).max()) > 5
    assert (bound >= share).all()


def test_report_of_the_reciprocal_model_holds_the_waves_bound(fixture_model):
    model = fixture_model("multihead").double()
    data = model.neighborhood(tol=1e-4)(small_crystals(torch.float64)[0])
    assert float(model.truncation_report(data)) >= float(data.wave_bound)


def test_relaxation_sees_no_jump_when_edges_enter_or_leave(fixture_model):
    """A lattice grows through many changes of its set of edges: the output changes smoothly, to the tolerance."""
    model, tol = fixture_model().double(), 1e-4
    crystals = strained(small_crystals(torch.float64)[0])
    transform = model.neighborhood(tol=tol)
    edges = [transform(data.clone()).num_edges for data in crystals]
    assert len(set(edges)) >= 3
    walked, _ = outputs(model, crystals, tol=tol)
    converged, _ = outputs(model, crystals, cutoff=16.0)
    jump = (walked - converged).diff(dim=0).abs().max()
    assert 0 < float(jump) <= tol * float(converged.abs().max())


def strained(reference):
    """The crystal under isotropic strains of 0 to 15 %."""
    crystals = []
    for strain in np.linspace(0.0, 0.15, 61):
        data = reference.clone()
        data.pos, data.cell = data.pos * (1 + strain), data.cell * (1 + strain)
        crystals.append(data)
    return crystals
