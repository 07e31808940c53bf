import json
import math

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.calibration import (
    Calibration,
    coverage_curve,
    fit_calibration,
    read_calibration,
    uncertainty_metrics,
    write_calibration,
)
from torch_geometric_crystal.benchmark.calibration_plot import plot_calibration


def drawn(scale, offset, number=20000, seed=0):
    """Spreads, and errors that are Gaussian with the deviation scale * spread + offset."""
    generator = np.random.default_rng(seed)
    spread = generator.gamma(2.0, 0.5, size=number)
    return spread, (scale * spread + offset) * generator.normal(size=number)


@pytest.mark.parametrize(("scale", "offset"), [(2.0, 0.0), (0.5, 0.3), (0.0, 1.5), (3.0, 1.0)])
def test_scale_and_offset_are_found_again(scale, offset):
    spread, error = drawn(scale, offset)
    calibration = fit_calibration(spread[:, None], error[:, None], ["energy"], ["eV"])
    assert calibration.scale[0] == pytest.approx(scale, abs=0.06)
    assert calibration.offset[0] == pytest.approx(offset, abs=0.06)
    assert calibration.count == (20000,)


def test_the_likelihood_is_not_beaten_by_any_scale_and_offset_tried():
    spread, error = drawn(0.7, 0.2, number=200)
    calibration = fit_calibration(spread[:, None], error[:, None], ["energy"], ["eV"])
    best = uncertainty_metrics(error, calibration.apply(spread[:, None])[:, 0])["nll"]
    for scale in np.linspace(0.0, 2.0, 41):
        for offset in np.linspace(0.0, 1.0, 41)[1:]:
            assert uncertainty_metrics(error, scale * spread + offset)["nll"] >= best - 1e-5


def test_without_an_offset_the_scale_has_its_closed_form():
    spread, error = drawn(1.7, 0.0)
    calibration = fit_calibration(spread[:, None], error[:, None], ["energy"], ["eV"])
    assert calibration.offset[0] < 0.02
    assert calibration.scale[0] == pytest.approx(np.sqrt(np.mean((error / spread) ** 2)), rel=0.02)


def test_calibrated_intervals_have_their_share_of_the_errors():
    spread, error = drawn(2.5, 0.1)
    calibration = fit_calibration(spread[:5000, None], error[:5000, None], ["energy"], ["eV"])
    after = uncertainty_metrics(error[5000:], calibration.apply(spread[5000:, None])[:, 0])
    before = uncertainty_metrics(error[5000:], spread[5000:])
    assert after["coverage_68"] == pytest.approx(0.68, abs=0.02)
    assert after["coverage_95"] == pytest.approx(0.95, abs=0.01)
    assert after["miscalibration_area"] < 0.01 < 0.15 < before["miscalibration_area"]
    assert after["nll"] < before["nll"]


def test_metrics_of_standard_normal_errors_are_those_of_the_normal_distribution():
    error = np.random.default_rng(1).normal(size=200000)
    metrics = uncertainty_metrics(error, np.ones_like(error))
    assert metrics["nll"] == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.01)
    assert metrics["coverage_68"] == pytest.approx(0.68, abs=0.005)
    assert metrics["rmse"] == pytest.approx(1.0, abs=0.01)
    assert metrics["mean_uncertainty"] == 1.0


def test_the_area_is_a_half_where_every_error_is_outside_and_where_every_one_is_inside():
    error = np.full(50, 1.0)
    assert uncertainty_metrics(error, np.full(50, 1e-9))["miscalibration_area"] == pytest.approx(0.5, abs=0.01)
    assert uncertainty_metrics(error, np.full(50, 1e9))["miscalibration_area"] == pytest.approx(0.5, abs=0.01)


def test_a_spread_of_zero_is_never_called_certain():
    error = np.array([0.1, -0.2] * 10)
    spread = np.array([0.0, 0.1] * 10)
    assert uncertainty_metrics(error, np.zeros(20))["nll"] == math.inf
    calibration = fit_calibration(spread[:, None], error[:, None], ["energy"], ["eV"])
    assert calibration.offset[0] > 0.0
    alike = fit_calibration(np.zeros((20, 1)), error[:, None], ["energy"], ["eV"])
    assert (alike.scale[0], alike.offset[0]) == (0.0, pytest.approx(np.sqrt(np.mean(error**2))))


def test_unknown_values_are_left_out_and_targets_are_calibrated_apart():
    spread, error = drawn(2.0, 0.0, number=4000)
    errors = np.stack([error, 10 * error], axis=1)
    errors[::2, 1] = np.nan
    calibration = fit_calibration(np.stack([spread, spread], axis=1), errors, ["a", "b"], ["eV", "GPa"])
    assert calibration.count == (4000, 2000)
    assert calibration.scale[1] == pytest.approx(10 * calibration.scale[0], rel=0.1)
    assert uncertainty_metrics(errors[:, 1], spread)["count"] == 2000
    assert uncertainty_metrics([math.nan], [1.0])["count"] == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ([0.1] * 9 + [math.nan] * 5, "energy: expected at least 10 known values to calibrate on, received 9"),
        ([0.0] * 14, "energy: expected some error to calibrate on"),
    ],
)
def test_too_little_to_calibrate_on_is_refused(error, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(np.ones((14, 1)), np.array(error)[:, None], ["energy"], ["eV"])


def test_the_curve_goes_from_nothing_to_everything():
    expected, observed = coverage_curve([0.5, -1.0, 2.0], [1.0, 1.0, 1.0])
    assert (expected[0], expected[-1]) == (0.0, 1.0)
    assert (observed[0], observed[-1]) == (0.0, 1.0)
    assert (np.diff(observed) >= 0).all()


@pytest.fixture
def calibration():
    return Calibration(
        target_names=("a", "b"), units=("eV", ""), scale=(1.5, 0.0), offset=(0.0, 0.25), count=(10, 20), members=("x",)
    )


def test_a_calibration_is_written_and_read(calibration, tmp_path):
    write_calibration(calibration, tmp_path / "c.json", data="flla_2015", metrics={"a": math.nan})
    assert read_calibration(tmp_path / "c.json") == calibration
    assert json.loads((tmp_path / "c.json").read_text())["data"] == "flla_2015"
    np.testing.assert_allclose(calibration.apply(np.array([[2.0, 2.0]])), [[3.0, 0.25]])


@pytest.mark.parametrize(
    "change",
    [
        {"format": "else"},
        {"format_version": 2},
        {"scale": [1.0]},
        {"scale": [-1.0, 0.0]},
        {"offset": [None, 0.0]},
        {"offset": ["1", 0.0]},
        {"count": 3},
    ],
)
def test_a_file_that_is_no_calibration_is_refused(calibration, tmp_path, change):
    write_calibration(calibration, tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=r"c.json': not a calibration .* Give the calibration.json"):
        read_calibration(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="not a calibration"):
        read_calibration(tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        read_calibration(tmp_path / "absent.json")


def test_the_picture_is_drawn_with_gaps_and_few_points(tmp_path):
    spread, error = drawn(2.0, 0.1, number=12)
    errors = np.stack([error, np.full(12, np.nan)], axis=1)
    both = np.stack([spread, spread], axis=1)
    plot_calibration(errors, both, 2 * both + 0.1, tmp_path / "c.png", ["a", "b"], ["eV", ""], "title")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
