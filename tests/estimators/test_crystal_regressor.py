import copy
import os
import pickle
import random
import tempfile

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from torch_geometric_crystal.benchmark import CheckpointError, load_model, read_checkpoint
from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.estimators import CrystalRegressor


def test_training_lowers_the_error_and_the_score_is_r2(regressor, crystals):
    structures, values = crystals(40)
    estimator = regressor(epochs=40, lr=5e-3, val_fraction=0.2)
    assert estimator.fit(structures, values) is estimator
    prediction = estimator.predict(structures)
    assert prediction.shape == (40,)
    assert np.abs(prediction - values).mean() < 0.5 * np.abs(values - values.mean()).mean()
    assert estimator.score(structures, values) == pytest.approx(r2_score(values, prediction))
    assert estimator.n_iter_ == len(estimator.history_) == 40
    assert {"train_loss", "val_mae_target", "lr"} <= set(estimator.history_[0])


def test_the_same_seed_gives_the_same_model_and_another_seed_another(regressor, crystals, fitted):
    structures, values = crystals(24)
    prediction = fitted.predict(structures)
    np.testing.assert_array_equal(regressor().fit(structures, values).predict(structures), prediction)
    assert (regressor(seed=1).fit(structures, values).predict(structures) != prediction).all()


def test_fit_starts_anew(regressor, crystals, fitted):
    structures, values = crystals(24)
    estimator = regressor().fit(structures[:10], -values[:10])
    np.testing.assert_array_equal(estimator.fit(structures, values).predict(structures), fitted.predict(structures))


def test_several_targets_with_gaps_are_learned_and_predicted_in_their_shape(regressor, crystals):
    structures, values = crystals(24)
    table = np.stack([values, -values], axis=1)
    table[::3, 1] = np.nan
    estimator = regressor().fit(structures, table)
    assert estimator.predict(structures[:5]).shape == (5, 2)
    assert estimator.model_.card.target_names == ("target_1", "target_2")
    assert regressor().fit(structures, values[:, None]).predict(structures[:5]).shape == (5, 1)


@pytest.mark.usefixtures("fitted")  # PyG has written its templates
def test_nothing_is_left_behind(regressor, crystals, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    structures, values = crystals(12)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    regressor(epochs=1).fit(structures, values)
    assert os.listdir(tmp_path) == []
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_of_a_fitted_estimator_predict_the_same(fitted, crystals, duplicate):
    structures, _ = crystals(6, seed=1)
    double = duplicate(fitted)
    np.testing.assert_array_equal(double.predict(structures), fitted.predict(structures))
    assert double.get_params() == fitted.get_params()
    assert double.model_ is not fitted.model_


def test_joblib_dumps_and_loads_a_fitted_estimator(fitted, crystals, tmp_path):
    structures, _ = crystals(6, seed=1)
    joblib.dump(fitted, tmp_path / "e.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "e.joblib").predict(structures), fitted.predict(structures))


def test_a_pickle_holds_no_torch_module(fitted):
    assert b"torch.nn.modules" not in pickle.dumps(fitted)


def test_a_clone_is_not_fitted(fitted, crystals):
    with pytest.raises(NotFittedError):
        clone(fitted).predict(crystals(2)[0])


def test_saved_and_loaded_is_the_same_estimator(fitted, crystals, tmp_path):
    structures, _ = crystals(6, seed=1)
    fitted.save(tmp_path / "e.ckpt")
    loaded = CrystalRegressor.load(tmp_path / "e.ckpt")
    np.testing.assert_array_equal(loaded.predict(structures), fitted.predict(structures))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.history_ == fitted.history_
    model = load_model(tmp_path / "e.ckpt")
    np.testing.assert_allclose(model.predict_structures(structures)[:, 0], fitted.predict(structures), rtol=1e-6)


def test_a_run_of_the_command_line_is_loaded_with_its_model(fitted, crystals, tmp_path):
    from torch_geometric_crystal.benchmark import export_model, save_checkpoint

    structures, _ = crystals(6, seed=1)
    save_checkpoint(tmp_path / "last.ckpt", fitted.model_.card, fitted.model_.state_dict())
    export_model(fitted.model_, tmp_path / "x.safetensors")
    for path in (tmp_path, tmp_path / "x.safetensors"):
        loaded = CrystalRegressor.load(path)
        np.testing.assert_array_equal(loaded.predict(structures), fitted.predict(structures))
        assert loaded.model_options["channels"] == 8
        assert "num_targets" not in loaded.model_options


def test_a_saved_estimator_is_no_run_to_resume(fitted, crystals, tmp_path):
    from torch_geometric_crystal.benchmark import fit

    fitted.save(tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["training"]["estimator"]["class"] == "CrystalRegressor"
    estimator = clone(fitted)
    structures, values = crystals(6)
    graphs = estimator._graphs(structures)
    for graph, value in zip(graphs, values, strict=True):
        graph.y = torch.tensor([[value]], dtype=torch.float32)
    with pytest.raises(CheckpointError, match="has no training state"):
        fit(copy.deepcopy(fitted.model_), graphs, [], estimator._config(), fitted.model_.card, tmp_path, resume=True)


def test_unfitted_is_not_saved(regressor, tmp_path):
    with pytest.raises(NotFittedError):
        regressor().save(tmp_path / "e.ckpt")


def test_cross_validation_scores_each_fold(regressor, crystals):
    structures, values = crystals(18)
    scores = cross_val_score(regressor(), structures, values, cv=3, scoring="neg_mean_absolute_error")
    assert scores.shape == (3,)
    assert (scores < 0).all()


def test_a_grid_search_takes_numbers_of_numpy(regressor, crystals):
    structures, values = crystals(16)
    grid = {"lr": np.logspace(-3, -2, 2), "epochs": np.array([1, 2])}
    search = GridSearchCV(regressor(), grid, cv=2, error_score="raise").fit(structures, values)
    assert search.best_params_["lr"] in grid["lr"]
    assert search.predict(structures[:3]).shape == (3,)


def test_a_step_before_it_in_a_pipeline_changes_the_structures(regressor, crystals):
    structures, values = crystals(12)
    structures = structures[1::2]
    pipeline = make_pipeline(FunctionTransformer(_primitive), regressor(epochs=1)).fit(structures, values[1::2])
    assert pipeline.predict(structures).shape == (6,)
    assert clone(pipeline).get_params()["crystalregressor__epochs"] == 1


def _primitive(structures):
    return [structure.get_primitive_structure() for structure in structures]


def test_a_structure_that_cannot_be_used_is_named(regressor, fitted, crystals):
    structures, values = crystals(4)
    structures[2] = Structure(Lattice.cubic(3.0), [{"Li": 0.5, "Na": 0.5}], [[0, 0, 0]])
    with pytest.raises(InvalidStructureError, match=r"structure 'X\[2\]': site 0 is disordered"):
        regressor().fit(structures, values)
    with pytest.raises(InvalidStructureError, match=r"structures?\[2\]|X\[2\]"):
        fitted.predict(structures)
    with pytest.raises(InvalidStructureError, match="it is no structure but a ndarray"):
        regressor().fit(np.zeros((4, 3)), values)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([1.0, 2.0], "y: expected as many targets as there are structures in X, 4, received 2"),
        (["metal"] * 4, "y: expected numbers .*; for classes use CrystalClassifier"),
        ([1.0, np.inf, 0.0, 0.0], "y: expected finite numbers, or NaN where unknown"),
        (np.zeros((4, 1, 1)), r"y: expected shape \(n,\) or \(n, T\)"),
        ([np.nan] * 4, "y: expected at least one value for each target"),
    ],
)
def test_targets_that_do_not_fit_are_refused(regressor, crystals, y, message):
    with pytest.raises(ValueError, match=message):
        regressor().fit(crystals(4)[0], y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "crystal"}, "model: expected one of"),
        ({"model_options": {"chanels": 8}}, "model_options of crystalformer: .*chanels"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1"),
        ({"recipe": {"epoch": 3}}, "recipe setting: expected one of"),
        ({"recipe": "fast"}, "recipe preset: expected one of"),
        ({"val_fraction": 1.0}, "val_fraction: expected a share"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_settings_are_checked_when_fitting_and_not_before(regressor, crystals, settings, message):
    estimator = regressor(**settings)
    with pytest.raises(ValueError, match=message):
        estimator.fit(*crystals(4))


def test_one_structure_is_trained_on_without_validation(regressor, crystals):
    estimator = regressor(epochs=1).fit(*crystals(1))
    assert "val_mae_target" not in estimator.history_[0]


def test_an_interruption_leaves_the_estimator_unfitted(regressor, crystals, monkeypatch):
    from torch_geometric_crystal.benchmark import training

    monkeypatch.setattr(training.StopRequest, "requested", True, raising=False)
    monkeypatch.setattr(training.StopRequest, "__init__", lambda self: setattr(self, "_previous", {}))
    estimator = regressor()
    with pytest.raises(KeyboardInterrupt, match="the estimator is not fitted"):
        estimator.fit(*crystals(6))
    assert not hasattr(estimator, "model_")


def test_graphs_are_made_as_the_settings_say(regressor, crystals):
    structures, values = crystals(4)
    cutoffs = [regressor(neighborhood={"cutoff": cutoff})._graphs(structures)[0].edge_cutoff for cutoff in (2.0, 3.0)]
    assert float(cutoffs[0]) < float(cutoffs[1])
    estimator = regressor(epochs=1, neighborhood={"cutoff": 2.0}).fit(structures, values)
    assert estimator.model_.card.neighborhood["cutoff"] == 2.0


def test_a_data_frame_stands_for_its_column_of_structures(regressor, crystals, fitted):
    structures, values = crystals(24)
    frame = pd.DataFrame({"formula": ["?"] * 24, "structure": structures})
    np.testing.assert_array_equal(regressor().fit(frame, values).predict(frame), fitted.predict(structures))
    with pytest.raises(ValueError, match=r"X, a DataFrame: none of its columns \('formula'\) holds structures"):
        fitted.predict(frame[["formula"]])
