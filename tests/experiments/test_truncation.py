"""The fixed range of unit cells is the sum that it says, and the experiment tells tolerances apart."""

import itertools

import numpy as np
import pytest
import torch

from torch_geometric_crystal.data import make_crystal

CELL = np.array([[3.0, 0.2, 0.0], [0.5, 4.0, 0.1], [0.0, -0.3, 5.0]])
PLACES = np.array([[0.1, 0.2, 0.3], [1.6, -0.4, 0.7]])  # the second one lies outside the cell


def crystal(cell=CELL):
    return make_crystal([8, 13], PLACES @ cell, cell, [True] * 3)


@pytest.mark.parametrize("unit_cells", [0, 1, 2])
def test_edges_go_to_the_images_of_wrapped_atoms(unit_cells):
    from unit_cell_range import UnitCellRange

    data = UnitCellRange(unit_cells)(crystal())
    wrapped = (PLACES % 1.0) @ CELL
    images = np.array(list(itertools.product(range(-unit_cells, unit_cells + 1), repeat=3))) @ CELL
    for target, source in itertools.product(range(2), repeat=2):
        chosen = (data.edge_index[1] == target) & (data.edge_index[0] == source)
        expected = np.sort(np.linalg.norm(wrapped[source] + images - wrapped[target], axis=1))
        np.testing.assert_allclose(data.edge_dist[chosen], expected, atol=1e-5)
    assert data.num_edges == 4 * (2 * unit_cells + 1) ** 3
    assert (data.edge_index[1].diff() >= 0).all()


def test_a_wide_enough_range_gives_the_converged_output_and_a_skewed_cell_does_not():
    from truncation_measures import outputs, skewed_cell, smallest_height
    from unit_cell_range import UnitCellRange

    from torch_geometric_crystal.nn import Crystalformer

    torch.manual_seed(0)
    model = Crystalformer(channels=16, num_blocks=2, num_heads=2, num_basis=8)
    exact, _ = outputs(model, [crystal()], model.neighborhood(tol=1e-9))
    wide, _ = outputs(model, [crystal()], UnitCellRange(4))
    torch.testing.assert_close(wide, exact, rtol=1e-5, atol=1e-6)
    skewed = skewed_cell(crystal(), 3)
    assert smallest_height(skewed) < smallest_height(crystal()) / 2
    same, _ = outputs(model, [skewed], model.neighborhood(tol=1e-9))
    torch.testing.assert_close(same, exact, rtol=1e-5, atol=1e-6)
    cut, _ = outputs(model, [skewed], UnitCellRange(2))
    assert float((cut - exact).abs().max()) > 1e-4


def test_heights_are_distances_of_faces():
    from truncation_measures import skewed_cell, smallest_height

    cubic = crystal(4.0 * np.eye(3))
    assert smallest_height(cubic) == pytest.approx(4.0)
    assert float(torch.linalg.det(skewed_cell(cubic, 2).cell[0])) == pytest.approx(64.0, rel=1e-5)


def test_the_quick_run_measures_cutoffs_tolerances_and_unit_cells(run_quickly):
    figures = run_quickly("truncation")
    rows, findings = figures["rows"], figures["findings"]
    assert [row["trained_at"] for row in rows] == [3.0, 6.0, "default"] * 2
    for row in rows:
        if row["trained_at"] != "default":
            assert row[f"mae_at_{row['trained_at']:g}"] == pytest.approx(row["test_mae"], rel=1e-4)
    changes = {entry["tol"]: entry for entry in findings["tolerances"] if "mean_change" in entry}
    assert changes[0.001]["mean_change"] < changes[0.1]["mean_change"]
    assert changes[0.001]["edges"] > changes[0.1]["edges"]
    as_given, skewed = findings["unit_cells"]
    assert skewed["largest_change"] > as_given["largest_change"]
