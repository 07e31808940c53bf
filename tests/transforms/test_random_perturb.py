import pytest
import torch

from torch_geometric_crystal.testing import small_crystals, supercell
from torch_geometric_crystal.transforms import InfiniteNeighborhood, RandomPerturb

NACL = small_crystals(torch.float64)[0]


def test_displacements_have_the_given_deviation():
    crystal = supercell(NACL, (12, 12, 12))
    moved = RandomPerturb(std=0.1, seed=0)(crystal).pos - crystal.pos
    assert abs(moved.std() - 0.1) < 0.002
    assert abs(moved.mean()) < 0.003


def test_the_cell_stays():
    assert torch.equal(RandomPerturb(0.1, 0)(NACL).cell, NACL.cell)


def test_the_seed_decides_the_sequence():
    first, second, other = RandomPerturb(0.1, 5), RandomPerturb(0.1, 5), RandomPerturb(0.1, 6)
    one, two = first(NACL), first(NACL)
    assert not torch.equal(one.pos, two.pos)
    assert torch.equal(one.pos, second(NACL).pos)
    assert torch.equal(two.pos, second(NACL).pos)
    assert not torch.equal(one.pos, other(NACL).pos)


def test_the_graph_is_removed():
    data = RandomPerturb(0.1, 0)(InfiniteNeighborhood(tol=1e-2, reciprocal_sigma_min=2.0)(NACL))
    assert sorted(data.keys()) == ["cell", "pbc", "pos", "structure_id", "z"]


def test_types_are_kept_and_the_given_crystal_is_not_changed():
    data = small_crystals()[0]
    pos = data.pos.clone()
    moved = RandomPerturb(0.1, 0)(data)
    assert moved.pos.dtype == torch.float32
    assert torch.equal(data.pos, pos)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_a_deviation_that_is_no_length_is_refused(std):
    with pytest.raises(ValueError, match="std: expected a finite length"):
        RandomPerturb(std, 0)


def test_repr():
    assert repr(RandomPerturb(0.1, 3)) == "RandomPerturb(std=0.1, seed=3)"
