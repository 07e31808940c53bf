"""The energies of point charges are right, and the experiment on long ranges runs."""

import math

import numpy as np
import pytest
from pymatgen.analysis.ewald import EwaldSummation
from pymatgen.core import Lattice, Structure

ROCK_SALT = 1.747564594633  # Madelung's constant of NaCl, in units of the distance of neighbours


def random_cell(seed, atoms=4):
    """A skewed cell with charges that sum to zero."""
    generator = np.random.default_rng(seed)
    cell = 4.0 * np.eye(3) + generator.uniform(-1.2, 1.2, size=(3, 3))
    grid = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[:atoms]
    pos = (grid + generator.uniform(-0.1, 0.1, size=(atoms, 3))) @ cell
    charges = generator.normal(size=atoms)
    return pos, cell, charges - charges.mean()


def direct(pos, cell, charges, screening_length, cells):
    """The sum over all images of `cells` cells each way."""
    axis = np.arange(-cells, cells + 1)
    shifts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) @ cell
    total = 0.0
    for i in range(len(pos)):
        for j in range(len(pos)):
            r = np.linalg.norm(pos[j] + shifts - pos[i], axis=1)
            r = r[r > 1e-8]
            total += charges[i] * charges[j] * np.sum(np.exp(-r / screening_length) / r) / 2
    return total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("screening_length", [0.5, 1.0, 2.0])
def test_screened_energies_are_those_of_the_direct_sum(seed, screening_length):
    from coulomb import COULOMB, coulomb_energy

    pos, cell, charges = random_cell(seed)
    expected = COULOMB * direct(pos, cell, charges, screening_length, 25)
    assert coulomb_energy(pos, cell, charges, screening_length) == pytest.approx(expected, rel=1e-9)


def test_neither_the_cell_nor_the_splitting_matters():
    from coulomb import far_energy, near_energy, own_energy

    pos, cell, charges = random_cell(7)
    for kappa in (0.0, 0.3, 1.0):
        parts = []
        for alpha in (0.3, 0.45, 0.7):
            for shear in (0, 1):
                skewed = np.array([[1, 0, 0], [shear, 1, 0], [0, 0, 1]]) @ cell
                near = near_energy(pos, skewed, charges, kappa, alpha)
                parts.append(near + far_energy(pos, skewed, charges, kappa, alpha) - own_energy(charges, kappa, alpha))
        np.testing.assert_allclose(parts, parts[0], rtol=1e-10)


def test_unscreened_energies_are_those_of_pymatgen():
    from coulomb import coulomb_energy

    lattice = Lattice.from_parameters(4.1, 5.0, 6.2, 80, 95, 104)
    structure = Structure(
        lattice, ["Mg2+", "O2-", "Li+", "F-"], [[0, 0, 0], [0.5, 0.45, 0], [0.5, 0, 0.6], [0.1, 0.5, 0.5]]
    )
    expected = EwaldSummation(structure, acc_factor=14).total_energy
    charges = np.array([2.0, -2.0, 1.0, -1.0])
    assert coulomb_energy(structure.cart_coords, lattice.matrix.copy(), charges) == pytest.approx(expected, rel=1e-6)


def test_madelung_constant_of_rock_salt():
    from coulomb import COULOMB, coulomb_energy

    cell = 2.5 * (np.ones((3, 3)) - np.eye(3))
    pos = np.array([[0.0, 0.0, 0.0], [2.5, 2.5, 2.5]])
    energy = coulomb_energy(pos, cell, np.array([1.0, -1.0]))
    assert -energy * 2.5 / COULOMB == pytest.approx(ROCK_SALT, rel=1e-11)


def test_long_screening_lengths_come_to_the_plain_energy():
    """In first order exp(-kappa r) / r loses kappa, which all pairs of a neutral crystal share but self and self."""
    from coulomb import COULOMB, coulomb_energy

    pos, cell, charges = random_cell(3)
    plain = coulomb_energy(pos, cell, charges)
    for length in (1e4, 1e5):
        expected = COULOMB / length * np.square(charges).sum() / 2
        assert coulomb_energy(pos, cell, charges, length) - plain == pytest.approx(expected, rel=1e-2)
    with pytest.raises(ValueError, match="neutral"):
        coulomb_energy(pos, cell, charges + 0.1, math.inf)


def test_ionic_crystals_are_neutral_and_their_copies_have_what_they_should():
    from ionic_crystals import charges_of, ionic_crystals

    crystals, origins = ionic_crystals(8, 6, 0.1, 0.02, 2.0)
    assert len(crystals) == len(origins) == 24
    assert len(set(origins)) == 8
    for first, second, third in zip(crystals[::3], crystals[1::3], crystals[2::3], strict=True):
        assert charges_of(first).sum() == 0
        assert first.num_nodes == second.num_nodes == third.num_nodes // 2
        assert not np.allclose(first.pos, second.pos)
        assert first.y != second.y
    with pytest.raises(ValueError, match="at most"):
        ionic_crystals(10**6, 6, 0.1, 0.02, 2.0)


def test_the_quick_run_compares_models_of_equal_parameters(run_quickly):
    figures = run_quickly("long_range")
    rows, findings = figures["rows"], figures["findings"]
    assert len(rows) == 2 * 2 * 3
    parameters = {row["model"]: row["parameters"] for row in rows}
    assert parameters["real"] == parameters["multihead"] < parameters["real, psi"]
    assert len(findings["more_than_real"]) == 2 * 2
    for row in rows:
        number = sum(row[f"crystals_{k}"] for k in range(3))
        together = sum(row[f"mae_{k}"] * row[f"crystals_{k}"] for k in range(3) if row[f"crystals_{k}"]) / number
        assert together == pytest.approx(row["test_mae"], rel=1e-3)
