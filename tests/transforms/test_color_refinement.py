import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from torch_geometric_crystal.transforms.color_refinement import levels, refine_colors

NO_PAIRS = (np.zeros(0, dtype=np.int64), np.zeros((2, 0), dtype=np.int64))


@given(
    st.lists(st.floats(-2.0, 9.0, width=32), max_size=60),
    st.sampled_from([0.0, 1e-4, 0.3, 5.0]),
)
def test_values_of_one_level_differ_by_the_tolerance_at_most(values, tolerance):
    values = np.array(values, dtype=np.float64)
    numbers = levels(values, tolerance)
    assert sorted(set(numbers.tolist())) == list(range(len(set(numbers.tolist()))))
    for number in set(numbers.tolist()):
        assert np.ptp(values[numbers == number]) <= tolerance
    order = np.argsort(values, kind="stable")
    for value in values:
        assert len(set(numbers[values == value].tolist())) == 1
    steps, jumps = np.diff(numbers[order]), np.diff(values[order]) > tolerance
    assert set(steps.tolist()) <= {0, 1}
    assert (steps[jumps] == 1).all()


def test_values_near_each_other_are_one_level():
    assert levels(np.array([2.5, 1.00001, 1.0, 2.50002, 1.00002]), 1e-4).tolist() == [1, 0, 0, 1, 0]


def test_a_run_that_is_too_wide_is_cut_at_its_gaps():
    values = np.array([0.0, 1e-9, 0.06, 0.06 + 1e-9, 0.1, 0.16, 0.16 + 1e-9, 0.16 + 2e-9])
    assert levels(values, 0.095).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    evenly = levels(np.arange(0.0, 1.0, 0.01), 0.095)
    assert len(set(evenly.tolist())) == 100  # nothing says where, so nothing is merged


def chain(number):
    """A path of like atoms, each edge there in both directions."""
    left = np.arange(number - 1)
    return np.stack([np.concatenate([left, left + 1]), np.concatenate([left + 1, left])])


def test_atoms_of_a_chain_differ_by_their_distance_from_its_ends():
    edge_index = chain(7)
    zeros = np.zeros(7, dtype=np.int64), np.zeros(12, dtype=np.int64)
    atoms = refine_colors(*zeros, NO_PAIRS[0], edge_index, NO_PAIRS[1]).atoms
    assert (atoms == atoms[::-1]).all()
    assert len(set(atoms.tolist())) == 4


def test_one_other_atom_breaks_the_symmetry():
    elements = np.array([0, 0, 0, 0, 0, 0, 1])
    atoms = refine_colors(elements, np.zeros(12, dtype=np.int64), NO_PAIRS[0], chain(7), NO_PAIRS[1]).atoms
    assert len(set(atoms.tolist())) == 7


def test_a_ring_of_six_and_two_of_three_look_alike():
    """What refinement cannot tell apart, message passing cannot either."""
    ring = np.stack([np.arange(6), (np.arange(6) + 1) % 6])
    triangles = np.array([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
    for edges in (ring, triangles):
        both = np.concatenate([edges, edges[::-1]], axis=1)
        colors = refine_colors(
            np.zeros(6, dtype=np.int64), np.zeros(12, dtype=np.int64), NO_PAIRS[0], both, NO_PAIRS[1]
        )
        assert set(colors.atoms.tolist()) == set(colors.edges.tolist()) == {0}


def test_a_pair_that_differs_is_seen_by_its_edges_and_atoms():
    """Two rings of three, alike but for one angle."""
    edge_index = np.array([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
    pairs = np.array([[2, 0, 1, 5, 3, 4], [0, 1, 2, 3, 4, 5]])
    angles = np.array([0, 0, 0, 0, 0, 1])
    colors = refine_colors(np.zeros(6, dtype=np.int64), np.zeros(6, dtype=np.int64), angles, edge_index, pairs)
    assert len(set(colors.atoms[:3].tolist())) == 1
    assert len(set(colors.atoms.tolist())) == 4
    assert len(set(colors.edges.tolist())) == 4
