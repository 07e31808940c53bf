import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from tests.crystals import real_crystals
from torch_geometric_crystal.data.neighbors import periodic_images
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.ops.lattice import reduce_lattice
from torch_geometric_crystal.transforms import InfiniteNeighborhood, RebuildEdges, certify_edges

TRUE = (True, True, True)
SIGMA_MAX = 1.4 / math.sqrt(0.5)


def crystal(pos, cell, pbc=TRUE, dtype=torch.float64):
    return Data(
        z=torch.arange(1, len(pos) + 1) % 60 + 1,
        pos=torch.as_tensor(pos).to(dtype),
        cell=torch.as_tensor(cell).to(dtype).view(1, 3, 3),
        pbc=torch.tensor(pbc).view(1, 3),
    )


@pytest.fixture
def crystals():
    graph = InfiniteNeighborhood(tol=1e-7)
    slab = crystal([[0.0, 0, 0], [1.4, 1.6, 1.1]], np.diag([3.0, 3.2, 1.0]), (True, True, False))
    molecule = crystal([[0.0, 0, 0], [1.1, 0, 0], [0.3, 1.2, 9.9]], np.eye(3), (False, False, False))
    return [graph(data) for data in [*(crystal(*c) for c in real_crystals(step=800)), slab, molecule]]


def edges(data):
    rows = torch.cat([data.edge_index.T, data.edge_shift], dim=1).tolist()
    assert len(set(map(tuple, rows))) == len(rows)
    return set(map(tuple, rows))


def images(data, radius):
    lattice = reduce_lattice(data.cell[0].numpy(), data.pbc[0].numpy())
    found = periodic_images(data.pos.numpy(), lattice, radius)
    return found.select(np.ones(len(found.dist), dtype=bool))


def shaken(data, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = data.clone()
    data.pos = data.pos + size * torch.randn(data.pos.shape, generator=generator, dtype=torch.float64)
    return data


def strained(data, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    change = torch.eye(3, dtype=torch.float64) + size * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    data = data.clone()
    data.pos, data.cell = data.pos @ change, data.cell @ change
    return data


def test_positions_that_have_not_moved_give_the_same_graph(crystals):
    batch = Batch.from_data_list(crystals)
    again = RebuildEdges()(batch.clone())
    assert torch.equal(again.edge_index, batch.edge_index)
    assert edges(again) == edges(batch)
    torch.testing.assert_close(again.edge_dist, batch.edge_dist, rtol=0, atol=1e-12)


@pytest.mark.parametrize("skin", [0.0, 0.7])
def test_edges_are_all_images_within_each_crystals_cutoff(crystals, skin):
    rebuild = RebuildEdges(skin)
    for seed in range(3):
        moved = [strained(shaken(data, 0.05, seed), 0.004, seed) for data in crystals]
        rebuilt = rebuild(Batch.from_data_list(moved)).to_data_list()
        for data, new in zip(moved, rebuilt, strict=True):
            target, source, shift, dist = images(data, data.edge_cutoff.item())
            assert edges(new) == set(map(tuple, np.column_stack([source, target, shift]).tolist()))
            np.testing.assert_allclose(np.sort(new.edge_dist), np.sort(dist), atol=1e-12)


def forces(model, data):
    data = data.clone()
    data.pos.requires_grad_()
    data.cell.requires_grad_()
    energy = model(data)
    return energy.detach(), *torch.autograd.grad(energy.sum(), [data.pos, data.cell])


def test_energies_forces_and_stress_along_a_path_are_those_of_the_transform_applied_afresh(crystals):
    torch.manual_seed(0)
    model = Crystalformer(channels=16, num_blocks=2, num_heads=2, num_basis=8).double().eval()
    graph, rebuild = InfiniteNeighborhood(tol=1e-7), RebuildEdges(skin=0.5)
    graphs = set()
    for step in range(6):
        moved = [strained(shaken(data, 0.02 * step), 0.004 * step) for data in crystals[:4]]
        batch = rebuild(Batch.from_data_list(moved))
        afresh = Batch.from_data_list([graph(data) for data in moved])
        graphs.add(batch.edge_index.size(1))
        for value, expected in zip(forces(model, batch), forces(model, afresh), strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert len(graphs) > 1
    assert 1 < rebuild.num_searches < 6


def test_the_list_is_used_until_an_atom_has_moved_by_half_the_skin(crystals):
    rebuild = RebuildEdges(skin=0.4)
    searches = []
    for distance in (0.0, 0.1, 0.39, 0.41):
        data = crystals[0].clone()
        data.pos[0, 0] += distance  # relative to the mean of its two atoms, half of this
        rebuild(data)
        searches.append(rebuild.num_searches)
    assert crystals[0].num_nodes == 2
    assert searches == [1, 1, 1, 2]


def test_a_drift_of_the_whole_crystal_needs_no_search(crystals):
    rebuild = RebuildEdges(skin=0.4)
    batch = Batch.from_data_list(crystals)
    rebuild(batch)
    batch.pos = batch.pos + torch.tensor([30.0, -7.0, 1.0])
    assert edges(rebuild(batch)) == edges(batch)
    assert rebuild.num_searches == 1


def test_a_change_of_the_cell_alone_is_seen(crystals):
    rebuild = RebuildEdges(skin=0.3)
    data = crystals[0].clone()
    rebuild(data)
    data.cell = data.cell * 0.9
    assert edges(rebuild(data)) == edges(RebuildEdges()(data))
    assert rebuild.num_searches == 2


def test_another_batch_with_as_many_atoms_makes_a_new_list(crystals):
    rebuild = RebuildEdges(skin=0.3)
    data = crystals[0].clone()
    rebuild(data)
    data.edge_cutoff = data.edge_cutoff + 1.0
    assert edges(rebuild(data)) == edges(RebuildEdges()(data))
    assert rebuild.num_searches == 2
    assert edges(rebuild(crystals[1])) == edges(RebuildEdges()(crystals[1]))
    assert rebuild.num_searches == 3


def test_what_the_old_positions_certified_is_removed_and_made_anew_on_demand(crystals):
    batch = RebuildEdges()(Batch.from_data_list([shaken(data, 0.05) for data in crystals]))
    assert "truncation_bound" not in batch
    assert "log_tail" not in batch
    for data in certify_edges(batch).to_data_list():
        cutoff = data.edge_cutoff.item()
        target, _, _, dist = images(data, cutoff + 6.0)
        beyond = np.bincount(target, np.exp(-(dist**2) / (2 * SIGMA_MAX**2)) * (dist > cutoff), data.num_nodes)
        bound = data.log_tail.exp().numpy()
        assert (beyond <= bound).all()
        assert (bound <= 1.1 * beyond).all()
        assert (data.truncation_bound.item() == 0.0) == (not beyond.any())
        assert data.truncation_bound.item() < 1e-5


def test_a_crystal_that_has_not_moved_keeps_its_certificate(crystals):
    batch = Batch.from_data_list(crystals)
    again = certify_edges(RebuildEdges()(batch.clone()))
    torch.testing.assert_close(again.log_tail, batch.log_tail, rtol=0, atol=0.02)
    torch.testing.assert_close(again.truncation_bound, batch.truncation_bound, rtol=0.02, atol=0)


def test_waves_stay_but_not_their_bound(crystals):
    data = InfiniteNeighborhood(tol=1e-3, reciprocal_sigma_min=1.5)(crystals[0])
    rebuilt = RebuildEdges()(data.clone())
    assert torch.equal(rebuilt.wave_vector, data.wave_vector)
    assert "wave_bound" not in rebuilt


@pytest.mark.parametrize("skin", [0.0, 0.7])
def test_a_crystal_summed_over_waves_gets_no_edges(skin):
    torch.manual_seed(0)
    model = Crystalformer(channels=8, num_blocks=1, num_heads=2, num_basis=0, domain="auto").double()
    transform = model.neighborhood(tol=1e-6)
    dense, wide = crystal([[0.0, 0, 0], [1.45, 1.45, 1.2]], 2.9 * np.eye(3)), crystal([[0.0, 0, 0]], 9.0 * np.eye(3))
    batch = Batch.from_data_list([transform(dense), transform(wide)])
    assert [data.num_edges > 0 for data in batch.to_data_list()] == [False, True]
    expected = model(batch)
    again = RebuildEdges(skin)(batch.clone())
    assert edges(again) == edges(batch)
    torch.testing.assert_close(model(again), expected, rtol=1e-12, atol=0)
    certified = certify_edges(again)
    assert certified.truncation_bound[0] == 0.0
    assert certified.log_tail[:2].isneginf().all()
    with pytest.raises(ValueError, match="wave_bound, which InfiniteNeighborhood writes and RebuildEdges removes"):
        model.truncation_report(certified)


def test_a_crystal_without_a_graph_is_refused():
    data = crystal([[0.0, 0, 0]], 3.0 * np.eye(3))
    for function in (RebuildEdges(), certify_edges):
        with pytest.raises(ValueError, match=r"data: expected crystals with edge_cutoff; apply model.neighborhood\(\)"):
            function(data)


@pytest.mark.parametrize("skin", [-0.1, math.inf, math.nan])
def test_skin_has_to_be_a_length(skin):
    with pytest.raises(ValueError, match="skin: expected a length >= 0 in A"):
        RebuildEdges(skin)


def test_repr_states_the_skin():
    assert repr(RebuildEdges(skin=0.5)) == "RebuildEdges(skin=0.5)"
