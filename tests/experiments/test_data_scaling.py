"""Learning curves: training sets that hold each other, equal numbers of steps, and baselines on the same crystals."""

import math

import numpy as np
import pytest


def settings_of(**changes):
    from experiment import FOLDER, read_settings

    return read_settings(FOLDER / "data_scaling.yaml", False) | changes


def test_all_trials_have_about_the_same_number_of_steps():
    from data_scaling import make_trials

    settings = settings_of()
    trials = make_trials(settings)
    for trial in trials:
        recipe = trial.config.recipe
        steps = recipe.epochs * math.ceil(trial.labels["size"] / recipe.batch_size)
        assert steps == pytest.approx(settings["steps"], rel=0.06)
        assert recipe.averaging_epochs <= recipe.epochs
    assert len({trial.name for trial in trials}) == len(trials)
    sizes = {trial.labels["size"] for trial in trials if trial.labels["model"] == "alignn"}
    assert sizes == set(settings["models"]["alignn"]["only_sizes"])


def test_training_sets_hold_each_other_and_differ_between_seeds():
    from data_scaling import make_trial, parts_of

    settings = settings_of(max_atoms=4)

    def ids(size, seed):
        config = make_trial(settings, "flla_2015", "cgcnn", size, {"channels": 8}, seed).config
        parts = parts_of(settings, size, seed, config).parts
        assert len(parts["val"]) <= settings["first"]["val"]
        return {data.structure_id for data in parts["train"]}

    assert len(ids(16, 0)) == 16
    assert ids(16, 0) < ids(32, 0)
    assert ids(32, 0) != ids(32, 1)


def test_composition_features_are_those_of_the_crystals_elements():
    from data_scaling import features_by_name

    features = features_by_name("carbon_24", "energy_per_atom")
    rows = np.stack(list(features.values()))
    assert len(rows) == 2032
    assert np.ptp(rows, axis=0).max() == 0.0  # all are carbon
    assert rows[0, -118:].argmax() == 5


def test_the_quick_run_fits_exponents_and_has_the_baselines(run_quickly):
    figures = run_quickly("data_scaling")
    rows, findings = figures["rows"], figures["findings"]
    assert len(rows) == 2 * (3 * (2 + 2) + 1)
    assert {e["model"] for e in findings["exponents"]} == {"crystalformer", "cgcnn", "composition", "mean"}
    assert all(e["low"] <= e["exponent"] <= e["high"] for e in findings["exponents"])
    assert len(findings["widths"]) == 2
    means = {(e["model"], e["size"]): e["mean"] for e in findings["test_mae"]}
    for place, model in findings["best"].items():
        size = int(place.split(", ")[1])
        assert means[model, size] == min(value for (_, s), value in means.items() if s == size)


def test_exponents_can_leave_out_the_largest_sizes_of_a_set():
    from data_scaling import exponents_of

    errors = {100: 0.4, 200: 0.2, 400: 0.1, 800: 0.1}  # as 1 / size, but for the last
    curves = [{"data": "d", "model": "m", "size": size, "test_mae": error} for size, error in errors.items()]
    curves += [{"data": "d", "model": "few", "size": size, "test_mae": 1.0} for size in (100, 800)]
    assert [fit["model"] for fit in exponents_of(curves)] == ["m"]
    (without,) = exponents_of(curves, leave_out=1)
    assert without["exponent"] == pytest.approx(1.0, abs=1e-3)
    assert exponents_of(curves)[0]["exponent"] < 0.8
