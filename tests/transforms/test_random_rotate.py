import torch

from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import PeriodicKNNGraph, PeriodicRadiusGraph, RandomRotate
from torch_geometric_crystal.transforms.random_rotate import random_rotation

TRICLINIC = small_crystals(torch.float64)[-1]


def test_positions_and_cell_turn_together_by_a_proper_rotation():
    data = RandomRotate(seed=1)(TRICLINIC)
    rotation = torch.linalg.solve(TRICLINIC.cell[0], data.cell[0])
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(data.pos, TRICLINIC.pos @ rotation)
    assert (rotation - torch.eye(3)).abs().max() > 0.1


def test_the_graph_stays_valid(crystal):
    graph = PeriodicKNNGraph(5)(crystal)
    kept = RandomRotate(seed=2)(graph)
    rebuilt = PeriodicRadiusGraph(8.0)(RandomRotate(seed=2)(crystal))
    assert torch.equal(kept.edge_index, graph.edge_index)
    vectors = (kept.pos[kept.edge_index[0]] + kept.edge_shift.double() @ kept.cell[0]) - kept.pos[kept.edge_index[1]]
    torch.testing.assert_close(vectors.norm(dim=-1), kept.edge_dist)
    found = PeriodicRadiusGraph(8.0)(crystal).edge_dist.sort().values
    torch.testing.assert_close(rebuilt.edge_dist.sort().values, found)


def test_rotations_are_uniform():
    generator = torch.Generator().manual_seed(0)
    rotations = torch.stack([random_rotation(generator) for _ in range(4000)])
    # The Haar measure has mean 0 for each entry, 1/3 for each square, and 0 for the trace.
    assert rotations.mean(dim=0).abs().max() < 0.04
    assert (rotations.square().mean(dim=0) - 1 / 3).abs().max() < 0.02
    assert abs(rotations.diagonal(dim1=1, dim2=2).sum(dim=-1).mean()) < 0.06


def test_the_seed_decides_the_sequence():
    first, second, other = RandomRotate(5), RandomRotate(5), RandomRotate(6)
    one, two = first(TRICLINIC), first(TRICLINIC)
    assert not torch.equal(one.pos, two.pos)
    assert torch.equal(one.pos, second(TRICLINIC).pos)
    assert torch.equal(two.pos, second(TRICLINIC).pos)
    assert not torch.equal(one.pos, other(TRICLINIC).pos)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    RandomRotate(5)(TRICLINIC)
    assert torch.equal(before, torch.get_rng_state())


def test_types_are_kept_and_the_given_crystal_is_not_changed():
    data = small_crystals()[0]
    pos = data.pos.clone()
    turned = RandomRotate(0)(data)
    assert turned.pos.dtype == turned.cell.dtype == torch.float32
    assert torch.equal(data.pos, pos)


def test_repr():
    assert repr(RandomRotate(3)) == "RandomRotate(seed=3)"
