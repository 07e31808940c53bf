import numpy as np
import pytest
import torch

from torch_geometric_crystal.data import to_structure, validate_crystal
from torch_geometric_crystal.testing import small_crystals
from torch_geometric_crystal.transforms import PeriodicRadiusGraph

CRYSTALS = {data.structure_id: data for data in small_crystals(torch.float64)}


@pytest.mark.parametrize("name", CRYSTALS)
def test_each_is_a_valid_crystal(name):
    validate_crystal(CRYSTALS[name])
    assert CRYSTALS[name].num_nodes <= 6
    assert set(CRYSTALS[name].keys()) == {"z", "pos", "cell", "pbc", "structure_id"}


def test_names_are_unique_and_calls_give_the_same_crystals():
    again = small_crystals(torch.float64)
    assert len(CRYSTALS) == len(again) == 10
    assert all(torch.equal(data.pos, CRYSTALS[data.structure_id].pos) for data in again)
    again[0].pos += 1.0
    assert not torch.equal(again[0].pos, small_crystals(torch.float64)[0].pos)


def test_the_type_is_chosen():
    assert small_crystals()[0].pos.dtype == small_crystals()[0].cell.dtype == torch.float32
    assert CRYSTALS["NaCl"].pos.dtype == torch.float64


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning:spglib")
@pytest.mark.parametrize(
    ("name", "spacegroup"),
    [
        ("NaCl", 225),
        ("CsCl", 221),
        ("diamond", 227),
        ("Mg", 194),
        ("Cu", 225),
        ("TiO2-skewed", 136),
        ("SrTiO3", 221),
        ("GaAs-left-handed", 216),
        ("triclinic", 1),
    ],
)
def test_known_structures_have_their_space_groups(name, spacegroup):
    # spglib, which pymatgen asks, wants a right-handed basis; the inverted crystal has the same space group number
    structure = to_structure(CRYSTALS[name])
    if np.linalg.det(structure.lattice.matrix) < 0:
        structure = type(structure)(
            -structure.lattice.matrix, structure.species, -structure.cart_coords, coords_are_cartesian=True
        )
    assert structure.get_space_group_info(symprec=1e-3)[1] == spacegroup


@pytest.mark.parametrize(
    ("name", "distance", "neighbours"),
    [
        ("NaCl", 2.82, 6),
        ("CsCl", 3.568, 8),
        ("diamond", 1.5446, 4),
        ("Cu", 2.5562, 12),
        ("GaAs-left-handed", 2.4478, 4),
    ],
)
def test_known_structures_have_their_coordination(name, distance, neighbours):
    graph = PeriodicRadiusGraph(distance + 0.01)(CRYSTALS[name])
    assert torch.bincount(graph.edge_index[1]).tolist() == [neighbours] * graph.num_nodes
    np.testing.assert_allclose(graph.edge_dist, distance, atol=1e-3)


def test_the_awkward_ones_are_awkward():
    assert torch.linalg.det(CRYSTALS["GaAs-left-handed"].cell[0]) < 0
    lengths = CRYSTALS["Se-long-thin"].cell[0].norm(dim=-1)
    assert lengths.max() > 10 * lengths.min()
    skewed = CRYSTALS["TiO2-skewed"]
    fractional = skewed.pos @ torch.linalg.inv(skewed.cell[0])
    assert bool(((fractional < 0) | (fractional >= 1)).any())
    a, b, _ = skewed.cell[0] / skewed.cell[0].norm(dim=-1, keepdim=True)
    assert a @ b > 0.85
