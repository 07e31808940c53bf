import warnings

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data import (
    OverlappingAtomsWarning,
    make_crystal,
    validate_crystal,
    validate_structure,
)

CUBE = np.eye(3) * 4
PERIODIC = (True, True, True)


def crystal(**changes) -> Data:
    data = make_crystal([11, 17], np.array([[0, 0, 0], [2, 2, 2.0]]), CUBE, PERIODIC, structure_id="salt")
    for key, value in changes.items():
        data[key] = value
    return data


def test_a_good_crystal_passes():
    validate_crystal(crystal())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos": torch.tensor([[0, 0, 0], [0, float("nan"), 0]])}, r"pos\[1, 1\] is nan"),
        ({"pos": torch.tensor([[0, 0, 0], [0, 0, float("-inf")]])}, r"pos\[1, 2\] is -inf"),
        ({"pos": torch.zeros(3, 3)}, r"pos has shape \(3, 3\).*shape \(2, 3\)"),
        ({"pos": torch.zeros(2, 3, dtype=torch.int64)}, "pos has shape .* type int64"),
        ({"pos": None}, "pos is missing"),
        ({"pos": [[0, 0, 0]]}, "pos is a list"),
        ({"cell": torch.full((1, 3, 3), float("inf"))}, r"cell\[0, 0, 0\] is inf"),
        ({"cell": torch.eye(3)}, r"cell has shape \(3, 3\).*cell.view\(1, 3, 3\)"),
        ({"cell": torch.eye(3).repeat(2, 1, 1)}, "it has 2 cells"),
        ({"cell": torch.zeros(1, 3, 3)}, "zero volume"),
        ({"cell": torch.tensor([[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]])}, "zero volume"),
        ({"cell": torch.tensor([[[0.1, 0.7, 0.3], [0.9, 0.2, 0.6], [1.0, 0.9, 0.9]]])}, "zero volume"),
        ({"z": torch.tensor([11, 250])}, "atom 1 has atomic number 250, outside 1..118"),
        ({"z": torch.tensor([0, 17])}, "atom 0 has atomic number 0"),
        ({"z": torch.tensor([-1, 17])}, "atom 0 has atomic number -1"),
        ({"z": torch.tensor([11.0, 17.0])}, "z has shape .* type float32"),
        ({"z": torch.tensor([[11], [17]])}, r"z has shape \(2, 1\)"),
        ({"z": torch.zeros(0, dtype=torch.int64), "pos": torch.zeros(0, 3)}, "no atoms"),
        ({"pbc": torch.ones(3, dtype=torch.bool)}, r"pbc has shape \(3,\)"),
        ({"pbc": torch.ones(1, 3)}, "pbc has shape .* type float32"),
    ],
)
def test_each_fault_is_named_with_the_structure(changes, message):
    with pytest.raises(InvalidStructureError, match=f"structure 'salt': .*{message}") as caught:
        validate_crystal(crystal(**changes))
    assert caught.value.remedy


def test_a_name_given_by_the_caller_is_used():
    with pytest.raises(InvalidStructureError, match="structure 'file'"):
        validate_crystal(crystal(z=torch.tensor([0, 1])), "file")


def test_a_crystal_without_pbc_is_taken_as_periodic():
    data = crystal()
    del data.pbc
    validate_crystal(data)


@pytest.mark.parametrize(
    "cell",
    [
        np.diag([4.0, 4.0, -4.0]),
        np.array([[4, 0, 0], [400, 4, 0], [4000, 0, 4.0]]),
        np.diag([2.0, 3.0, 500.0]),
        Lattice.from_parameters(5, 5, 5, 2, 2, 2).matrix,
    ],
    ids=["left_handed", "very_skewed", "long", "needle"],
)
def test_unusual_but_valid_cells_pass(cell):
    validate_crystal(make_crystal([1], np.zeros((1, 3)), cell, PERIODIC))


@pytest.mark.parametrize(
    ("pos", "cell", "pbc"),
    [
        ([[0, 0, 0], [0, 0, 0]], CUBE, PERIODIC),
        ([[0, 0, 0], [0, 0.05, 0]], CUBE, PERIODIC),
        ([[0, 0, 0], [3.95, 0, 0]], CUBE, PERIODIC),
        ([[0, 0, 0], [-80.05, 40, 4]], CUBE, PERIODIC),
        ([[0, 0, 0], [0, 0, 4.05]], np.diag([4, -4, 4]), PERIODIC),
        ([[0, 0, 0], [0, 0.05, 0]], np.eye(3), (False, False, False)),
    ],
)
def test_overlapping_atoms_are_reported(pos, cell, pbc):
    data = make_crystal([1, 1], np.array(pos), cell, pbc, structure_id="pair")
    with pytest.warns(OverlappingAtomsWarning, match="structure 'pair': atoms . and . are"):
        validate_crystal(data)


@pytest.mark.parametrize(
    ("pos", "pbc"),
    [([[0, 0, 0], [0, 0.15, 0]], PERIODIC), ([[0, 0, 0], [3.95, 0, 0]], (False, True, True))],
)
def test_atoms_apart_are_not_reported(pos, pbc):
    validate_crystal(make_crystal([1, 1], np.array(pos), CUBE, pbc))


@pytest.mark.parametrize("num_atoms", [20, 100], ids=["all_pairs", "neighbour_search"])
@pytest.mark.parametrize("overlap", [False, True])
def test_overlaps_are_found_in_random_skewed_cells(num_atoms, overlap):
    rng = np.random.default_rng(num_atoms)
    for _ in range(20):
        cell = rng.normal(size=(3, 3)) * 8 + np.eye(3) * 30
        grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3)[:num_atoms] / 5.0
        pos = (grid + rng.integers(-3, 4, (num_atoms, 3))) @ cell
        if overlap:
            direction = rng.normal(size=3)
            pos[7] = pos[3] + rng.integers(-3, 4, 3) @ cell + 0.08 * direction / np.linalg.norm(direction)
        data = make_crystal(np.ones(num_atoms), pos, cell, PERIODIC, dtype=torch.float64)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            validate_crystal(data)
        assert [w.category for w in caught] == [OverlappingAtomsWarning] * overlap


def test_the_overlap_check_can_be_left_out():
    validate_crystal(crystal(pos=torch.zeros(2, 3)), check_overlap=False)


def test_a_structure_without_sites_is_refused():
    with pytest.raises(InvalidStructureError, match="structure 'void': it has no atoms"):
        validate_structure(Structure(Lattice.cubic(3), [], []), "void")


def test_an_ordered_structure_passes():
    validate_structure(Structure(Lattice.cubic(3), ["Fe2+"], [[0, 0, 0]]))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.diag([4, 4, 0.05]), "a lattice vector of 0.05 A, less than 0.1 A and 0.1 A.3, which no crystal has"),
        (np.diag([0.5, 0.5, 0.5]), "0.0625 A.3 an atom, less than 0.1 A and 0.1 A.3"),
        (np.diag([4, 4, 2e5]), "a lattice vector has a component of 2e.05 A, beyond 100000 A"),
    ],
)
def test_cells_of_no_crystal_are_refused(cell, message):
    data = make_crystal([1, 1], np.array([[0, 0, 0], [0.2, 0.2, 0.2]]), cell, PERIODIC, structure_id="odd")
    with pytest.raises(InvalidStructureError, match=f"structure 'odd': .*{message}"):
        validate_crystal(data)


def test_positions_beyond_all_lengths_are_refused():
    data = make_crystal([1, 1], np.array([[0, 0, 0], [0, 3e5, 0]]), np.eye(3), (False, False, False))
    with pytest.raises(InvalidStructureError, match=r"a position has a component of 3e\+05 A"):
        validate_crystal(data)


def test_a_large_cell_is_checked_for_overlaps_in_little_time_and_memory():
    rng = np.random.default_rng(0)
    pos = rng.random((200, 3)) * 150.0
    pos[77] = pos[3] + [0.05, 0.0, 0.0]
    data = make_crystal([1] * 200, pos, 150.0 * np.eye(3), PERIODIC, structure_id="large")
    with pytest.warns(OverlappingAtomsWarning, match="atoms (3 and 77|77 and 3) are 0.05"):
        validate_crystal(data)
