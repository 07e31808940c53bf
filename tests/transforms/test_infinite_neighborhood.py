import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from tests.crystals import random_crystals, real_crystals
from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.transforms import InfiniteNeighborhood

ROCK_SALT = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]), torch.tensor([[0.0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]])


def crystal(pos, cell, pbc=(True, True, True), dtype=torch.float64):
    pos = torch.as_tensor(pos).to(dtype)
    cell = torch.as_tensor(cell).to(dtype).view(1, 3, 3)
    return Data(
        z=torch.arange(1, len(pos) + 1) % 90 + 1,
        pos=pos,
        cell=cell,
        pbc=torch.tensor(pbc).view(1, 3),
        structure_id="test-1",
    )


def rock_salt(dtype=torch.float64):
    return crystal(ROCK_SALT[0] @ ROCK_SALT[1], ROCK_SALT[1], dtype=dtype)


def edges(data):
    return set(map(tuple, torch.cat([data.edge_index.T, data.edge_shift], dim=1).tolist()))


def distances_of(data, atom):
    return data.edge_dist[data.edge_index[1] == atom].sort().values


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_crystals(), st.sampled_from([1e-1, 1e-3, 1e-5]))
def test_edges_are_all_images_within_the_cutoff(random, tol):
    data = InfiniteNeighborhood(tol=tol, sigma_max=1.2)(crystal(random.pos, random.cell, random.pbc.tolist()))
    target, source, shift, dist = random.images(data.edge_cutoff.item())
    assert edges(data) == set(map(tuple, np.column_stack([source, target, shift]).tolist()))
    assert data.edge_index.size(1) == len(dist)
    assert 0.0 <= data.truncation_bound.item() <= tol


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields_have_the_documented_shapes_and_types(dtype):
    data = InfiniteNeighborhood(reciprocal_sigma_min=1.5)(rock_salt(dtype))
    num_edges, num_waves = data.edge_index.size(1), data.wave_vector.size(0)
    expected = {
        "edge_index": ((2, num_edges), torch.int64),
        "edge_shift": ((num_edges, 3), torch.int32),
        "edge_dist": ((num_edges,), dtype),
        "edge_cutoff": ((1,), torch.float64),
        "truncation_bound": ((1,), torch.float64),
        "log_tail": ((2,), torch.float64),
        "wave_vector": ((num_waves, 3), torch.int32),
        "num_wave_vectors": ((1,), torch.int64),
        "wave_cutoff": ((1,), torch.float64),
        "wave_bound": ((1,), torch.float64),
    }
    assert {name: (tuple(data[name].shape), data[name].dtype) for name in expected} == expected
    assert data.num_wave_vectors.item() == num_waves
    assert data.wave_bound.item() <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges_are_sorted_by_target_source_distance_and_image(dtype):
    data = InfiniteNeighborhood()(rock_salt(dtype))
    (source, target), shift = data.edge_index.tolist(), data.edge_shift.tolist()
    keys = list(zip(target, source, data.edge_dist.tolist(), shift, strict=True))
    assert keys == sorted(keys)


def test_the_self_image_is_the_first_edge_between_an_atom_and_itself():
    data = InfiniteNeighborhood()(rock_salt())
    first = [int((data.edge_index == i).all(0).nonzero()[0]) for i in range(2)]
    assert data.edge_index[:, first].tolist() == [[0, 1], [0, 1]]
    assert data.edge_shift[first].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert data.edge_dist[first].tolist() == [0.0, 0.0]


def test_edges_come_in_opposite_pairs():
    data = InfiniteNeighborhood()(crystal([[0.0, 0, 0], [1.0, 1.7, 0.3], [2.2, 0.4, 1.9]], 4.1 * np.eye(3)))
    reverse = torch.cat([data.edge_index.flip(0).T, -data.edge_shift], dim=1)
    assert set(map(tuple, reverse.tolist())) == edges(data)


@pytest.fixture(scope="module")
def real():
    return [crystal(pos, cell) for pos, cell in real_crystals(step=100)]


def skewed(data):
    transform = torch.tensor([[1, 0, 0], [3, 1, 0], [-2, 5, 1]], dtype=torch.float64)
    return crystal(data.pos, transform @ data.cell[0])


def left_handed(data):
    return crystal(data.pos, data.cell[0][[1, 0, 2]])


def rotated(data):
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    return crystal(data.pos @ rotation, data.cell[0] @ rotation)


def translated(data):
    return crystal(data.pos + torch.tensor([7.3, -11.1, 0.4]), data.cell)


def unwrapped(data):
    images = torch.randint(-3, 4, data.pos.shape, generator=torch.Generator().manual_seed(0)).double()
    return crystal(data.pos + images @ data.cell[0], data.cell)


def supercell(data):
    a, _, c = data.cell[0]
    copies = [data.pos + i * a + k * c for i in range(2) for k in range(2)]
    return crystal(torch.cat(copies), data.cell[0] * torch.tensor([[2.0], [1.0], [2.0]]))


@pytest.mark.parametrize("change", [skewed, left_handed, rotated, translated, unwrapped, supercell])
def test_every_atom_has_the_same_distances_in_every_description_of_a_crystal(real, change):
    transform = InfiniteNeighborhood(tol=1e-3)
    for data in real:
        plain, changed = transform(data.clone()), transform(change(data))
        assert changed.edge_cutoff.item() == pytest.approx(plain.edge_cutoff.item(), abs=1e-6)
        for atom in range(changed.num_nodes):
            torch.testing.assert_close(
                distances_of(changed, atom), distances_of(plain, atom % plain.num_nodes), rtol=0, atol=1e-9
            )


def test_single_precision_gives_the_same_graph(real):
    transform = InfiniteNeighborhood(tol=1e-3)
    for data in real:
        double = transform(data.clone())
        single = transform(crystal(data.pos, data.cell, dtype=torch.float32))
        assert edges(single) == edges(double)


def test_an_edge_that_enters_or_leaves_changes_the_output_by_less_than_tol():
    tol, spread = 1e-2, 1.0
    transform = InfiniteNeighborhood(tol=tol, spread=spread)
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.3]], dtype=torch.float64)
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def graph(strain):
        data = rock_salt()
        data.pos = data.pos + torch.tensor([0.3, 0.1, 0.0])[None] * torch.tensor([[0.0], [1.0]])
        data.pos, data.cell = data.pos * (1.0 + strain), data.cell * (1.0 + strain)
        return transform(data)

    def output(data):
        source, target = data.edge_index
        weights = (logits[target, source] - data.edge_dist**2 / (2 * transform.sigma_max**2)).exp()
        zeros = torch.zeros(2, dtype=torch.float64)
        return zeros.index_add(0, target, weights * values[source]) / zeros.index_add(0, target, weights)

    changes = 0
    strains = torch.linspace(-0.1, 0.1, 41).tolist()
    for low, high in itertools.pairwise(strains):
        if edges(graph(low)) == edges(graph(high)):
            continue
        before = edges(graph(low))
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if edges(graph(middle)) == before else (low, middle)
        jump = (output(graph(low)) - output(graph(high))).abs().max()
        changes += 1
        assert 0.0 < jump <= tol
    assert changes > 3


def test_a_given_cutoff_is_used_and_its_bound_reported():
    data = InfiniteNeighborhood(cutoff=6.1)(rock_salt())
    assert data.edge_cutoff.item() == 6.1
    assert data.edge_dist.max() <= 6.1
    assert 1e-3 < data.truncation_bound.item() < 0.2


def test_cutoff_is_the_inverse_of_tol():
    by_tol = InfiniteNeighborhood(tol=1e-4)(rock_salt())
    by_cutoff = InfiniteNeighborhood(cutoff=by_tol.edge_cutoff.item())(rock_salt())
    assert edges(by_tol) == edges(by_cutoff)
    assert by_cutoff.edge_cutoff.item() == by_tol.edge_cutoff.item()
    torch.testing.assert_close(by_cutoff.log_tail, by_tol.log_tail, rtol=0, atol=0.02)
    assert by_cutoff.truncation_bound.item() <= 1.02e-4


def test_a_cutoff_on_a_shell_keeps_the_whole_shell_in_every_rotation():
    data = rock_salt()
    shell = 2.8 * math.sqrt(6.0)
    sizes = {InfiniteNeighborhood(cutoff=shell)(change(data)).edge_index.size(1) for change in (rotated, skewed)}
    assert sizes == {InfiniteNeighborhood(cutoff=shell + 1e-3)(data).edge_index.size(1)}


def test_a_molecule_inside_the_cutoff_loses_nothing():
    data = InfiniteNeighborhood()(crystal([[0.0, 0, 0], [1.1, 0, 0]], np.eye(3), (False, False, False)))
    assert edges(data) == {(i, j, 0, 0, 0) for i in range(2) for j in range(2)}
    assert data.truncation_bound.item() == 0.0
    assert data.log_tail.tolist() == [-math.inf, -math.inf]


def test_a_slab_has_no_edges_across_the_vacuum_direction():
    data = InfiniteNeighborhood()(crystal([[0.0, 0, 0], [1.5, 1.5, 2.0]], 3.0 * np.eye(3), (True, True, False)))
    assert data.edge_shift[:, 2].tolist() == [0] * data.edge_index.size(1)
    assert data.edge_shift[:, :2].abs().max() >= 2


def test_edges_per_atom_do_not_grow_with_the_cell():
    small = InfiniteNeighborhood()(rock_salt())
    grid = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)
    pos = (small.pos[None] + (grid @ small.cell[0])[:, None]).reshape(-1, 3)
    large = InfiniteNeighborhood()(crystal(pos, 4.0 * small.cell))
    assert large.edge_index.size(1) == 64 * small.edge_index.size(1)


def test_pbc_is_true_in_all_directions_where_it_is_not_given():
    data = rock_salt()
    del data.pbc
    assert edges(InfiniteNeighborhood()(data)) == edges(InfiniteNeighborhood()(rock_salt()))


def test_batches_concatenate_atoms_edges_and_waves():
    transform = InfiniteNeighborhood(reciprocal_sigma_min=1.5)
    graphs = [transform(rock_salt()), transform(crystal([[0.0, 0, 0]], 3.0 * np.eye(3)))]
    batch = Batch.from_data_list(graphs)
    assert batch.edge_index[:, graphs[0].num_edges :].tolist() == (graphs[1].edge_index + 2).tolist()
    assert batch.num_wave_vectors.tolist() == [len(graph.wave_vector) for graph in graphs]
    assert batch.log_tail.shape == (3,)
    assert batch.edge_cutoff.shape == (2,)


def test_only_waves_are_made_where_edges_are_not_wanted():
    data = InfiniteNeighborhood()(rock_salt())
    waves = InfiniteNeighborhood(real=False, reciprocal_sigma_min=1.5)(data)
    assert "edge_index" not in waves
    assert "log_tail" not in waves
    assert waves.wave_vector[0].tolist() == [0, 0, 0]


def test_waves_of_an_earlier_graph_are_removed():
    data = InfiniteNeighborhood(reciprocal_sigma_min=1.5)(rock_salt())
    assert "wave_vector" not in InfiniteNeighborhood()(data)


def test_a_cell_of_too_many_waves_is_refused_before_they_are_made():
    data = Data(z=torch.tensor([6, 8]), pos=torch.tensor([[0.0, 0, 0], [0, 0, 1.1]]), cell=500.0 * torch.eye(3)[None])
    transform = InfiniteNeighborhood(real=False, reciprocal_sigma_min=1.55)
    with pytest.raises(InvalidStructureError, match=r"its cell asks for about \de\+0\d wave.*Use edges alone"):
        transform(data.clone())
    data.cell = 0.06 * data.cell
    data = transform(data)
    estimate = 2 / 3 * math.pi * data.wave_cutoff.item() ** 3 * 30.0**3 / (2 * math.pi) ** 3
    assert data.num_wave_vectors.item() == pytest.approx(estimate, rel=0.05)


def test_waves_need_three_periodic_directions():
    slab = crystal([[0.0, 0, 0]], 3.0 * np.eye(3), (True, True, False))
    with pytest.raises(InvalidStructureError, match=r"structure 'test-1': the reciprocal sum needs three periodic"):
        InfiniteNeighborhood(reciprocal_sigma_min=1.5)(slab)


def with_nan(data):
    data.pos[1, 2] = math.nan


def with_flat_cell(data):
    data.cell[0, 2] = data.cell[0, 0] + data.cell[0, 1]


def without_cell(data):
    del data.cell


@pytest.mark.parametrize(
    ("spoil", "fault"), [(with_nan, "nan"), (with_flat_cell, "zero volume"), (without_cell, "cell is missing")]
)
def test_a_spoilt_crystal_is_refused_by_name(spoil, fault):
    data = rock_salt()
    spoil(data)
    with pytest.raises(InvalidStructureError, match=f"structure 'test-1': .*{fault}"):
        InfiniteNeighborhood()(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tol": 0.0}, "tol: expected a share"),
        ({"spread": -0.5}, "spread: expected a number"),
        ({"sigma_max": 0.0}, "sigma_max: expected a positive length"),
        ({"cutoff": -1.0}, "cutoff: expected a length >= 0"),
        ({"reciprocal_sigma_min": 0.0}, "reciprocal_sigma_min: expected a positive length"),
        ({"real": False}, "real: expected True where reciprocal_sigma_min is None"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InfiniteNeighborhood(**arguments)


def test_repr_states_what_decides_the_graph():
    assert repr(InfiniteNeighborhood(sigma_max=2.0)) == "InfiniteNeighborhood(tol=0.001, sigma_max=2, spread=1.5)"
    waves = InfiniteNeighborhood(cutoff=6.0, sigma_max=2.0, reciprocal_sigma_min=1.5, real=False)
    assert repr(waves) == (
        "InfiniteNeighborhood(cutoff=6, sigma_max=2, spread=1.5, reciprocal_sigma_min=1.5, real=False)"
    )
