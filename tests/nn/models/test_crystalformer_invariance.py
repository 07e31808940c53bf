"""One crystal, however described, has one output."""

import pytest
import torch

from torch_geometric_crystal.testing import (
    assert_all_invariances,
    change_basis,
    crystal_outputs,
    permute_atoms,
    rotate,
    small_crystals,
    supercell,
    translate,
    wrap,
)

CHANGES = {
    "rotation": rotate,
    "translation": translate,
    "permutation": permute_atoms,
    "skewed basis": change_basis,
    "2x1x2 supercell": lambda data: supercell(data, (2, 1, 2)),
    "wrapping": wrap,
}


def single(data):
    data = data.clone()
    data.pos, data.cell, data.y = data.pos.float(), data.cell.float(), None
    return data


@pytest.fixture(scope="module")
def crystals(real_crystals):
    return real_crystals(100, most_atoms=16)


@pytest.fixture(scope="module")
def expected(fixture_model, crystals):
    return crystal_outputs(fixture_model(), [single(data) for data in crystals])


@pytest.mark.parametrize("change", CHANGES)
def test_output_of_100_real_crystals_is_invariant_in_float32(fixture_model, crystals, expected, change):
    """Each crystal's error is relative to the largest output of the hundred; the change is made in float64."""
    changed = crystal_outputs(fixture_model(), [single(CHANGES[change](data)) for data in crystals])
    assert float((changed - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_output_alone_equals_output_in_a_batch_in_float32(fixture_model, crystals, expected):
    model = fixture_model()
    alone = torch.cat([crystal_outputs(model, [single(data)]) for data in crystals])
    assert float((alone - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("name", ["real_beta", "multihead_beta", "real_reci"])
def test_awkward_crystals_are_invariant_in_float64(fixture_model, name):
    model = fixture_model(name).double()
    assert_all_invariances(model, small_crystals(torch.float64), rtol=1e-9, neighborhood=model.neighborhood(tol=1e-10))
