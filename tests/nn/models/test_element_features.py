import hashlib

import numpy as np
import pytest

from torch_geometric_crystal.nn.models.element_features import (
    NUM_ELEMENT_FEATURES,
    NUM_ELEMENTS,
    element_features,
)

GROUPS = [(0, 19), (19, 26), (26, 36), (36, 46), (46, 58), (58, 68), (68, 78), (78, 82), (82, 92)]
FEATURES = element_features()

# SHA-256 of the packed bits of elements 1 to 100 in data/sample-regression/atom_init.json of txie-93/cgcnn.
AUTHORS_SHA256 = "c59fe57b55a93e8363d990480bfbda12b292b31ddeaaba759035bc423d516821"


def test_the_bits_of_100_elements_are_those_of_the_authors_file():
    assert hashlib.sha256(np.packbits(FEATURES[:100]).tobytes()).hexdigest() == AUTHORS_SHA256


def test_shape_and_type():
    assert FEATURES.shape == (NUM_ELEMENTS, NUM_ELEMENT_FEATURES) == (118, 92)
    assert FEATURES.dtype == np.uint8
    assert set(np.unique(FEATURES)) == {0, 1}


@pytest.mark.parametrize(("first", "end"), GROUPS)
def test_each_property_sets_at_most_one_bit(first, end):
    assert FEATURES[:, first:end].sum(axis=1).max() == 1


@pytest.mark.parametrize(("first", "end"), [GROUPS[0], GROUPS[1], GROUPS[3], GROUPS[4], GROUPS[7]])
def test_group_period_radius_valence_and_block_are_known_for_every_element(first, end):
    assert (FEATURES[:, first:end].sum(axis=1) == 1).all()


def test_elements_are_told_apart_as_far_as_the_properties_go():
    assert len(np.unique(FEATURES[:100], axis=0)) >= 85  # neighbouring lanthanides and actinides share their bits


def test_group_period_and_block_agree_with_pymatgen():
    elements = pytest.importorskip("pymatgen.core").Element
    for z in range(1, 119):
        element, row = elements.from_Z(z), FEATURES[z - 1]
        assert row[:19].argmax() == (0 if element.block == "f" else element.group)
        assert row[19:26].argmax() + 1 == element.row
        block = "s" if z == 2 else element.block  # pymatgen counts helium, 1s2, with its group 18
        assert "spdf"[row[78:82].argmax()] == block
