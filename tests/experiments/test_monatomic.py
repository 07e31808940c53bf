"""Without psi all crystals of one element are the same to Crystalformer; with it, or a second element, they differ."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.nn import Crystalformer

SMALL = {"channels": 16, "num_blocks": 3, "num_heads": 4}


def crystals(species, number=6, seed=0):
    """Random cells of these elements at random places."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        cell = 3.0 * np.eye(3) * generator.uniform(0.8, 2.0, size=(3, 1)) + generator.uniform(-0.5, 0.5, (3, 3))
        places = generator.uniform(size=(len(species), 3)) @ cell
        found.append(make_crystal(species, places, cell, [True] * 3))
    return found


def outputs(model, found):
    batch = Batch.from_data_list([model.neighborhood()(data.clone()) for data in found])
    batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    with torch.no_grad():
        return model(batch)[:, 0]


def trained(num_basis, domain):
    """A model with random weights whose widths have seen a batch."""
    torch.manual_seed(0)
    model = Crystalformer(num_basis=num_basis, domain=domain, **SMALL).double()
    outputs(model.train(), crystals([6, 8, 13], seed=5))
    return model.eval()


@pytest.mark.parametrize("domain", ["real", "reciprocal", "multihead"])
@pytest.mark.parametrize("species", [[6], [6, 6], [6] * 5])
def test_without_psi_crystals_of_one_element_are_all_the_same(species, domain):
    found = outputs(trained(0, domain), crystals(species))
    assert float((found - found[0]).abs().max()) < 1e-12 * float(found.abs().max())


@pytest.mark.parametrize("domain", ["real", "reciprocal", "multihead"])
def test_without_psi_the_number_of_atoms_is_not_seen_either(domain):
    model = trained(0, domain)
    one, five = outputs(model, crystals([6])), outputs(model, crystals([6] * 5))
    torch.testing.assert_close(one, five, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("num_basis", "species"), [(8, [6]), (8, [6] * 5), (0, [6, 8]), (0, [6, 6, 6, 8])])
def test_with_psi_or_a_second_element_the_lattice_is_seen(num_basis, species):
    found = outputs(trained(num_basis, "real"), crystals(species))
    gaps = (found[:, None] - found[None]).abs() + torch.eye(len(found))
    assert float(gaps.min()) > 1e-6


def test_spread_is_that_within_groups():
    from monatomic import within

    values = np.array([[1.0], [3.0], [10.0], [10.0]])
    assert within(values, np.array([6, 6, 8, 8])) == pytest.approx(np.sqrt((1 + 1 + 0 + 0) / 4))
    assert within(values, np.arange(4)) == 0.0


def test_the_quick_run_shows_the_collapse(run_quickly):
    figures = run_quickly("monatomic")
    rows = figures["rows"]
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        rounding = 2e-7 * (155 if row["data"] == "carbon_24" else 1)  # carbon's energies are near -155 eV/atom
        assert (row["spread"] < rounding) == row["model"].startswith("no psi"), row
        assert row["spread_of_targets"] > 0.01
    differences = figures["findings"]["more_than_psi"]
    assert len(differences) == 2 * 2
    assert all(d["low"] <= d["mean"] <= d["high"] for d in differences)
