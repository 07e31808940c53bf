import numpy as np
import pytest
import torch

from torch_geometric_crystal.benchmark.baselines import composition_features, predict_from_composition, predict_mean
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.tasks import load_task, run_fold
from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.datasets import CacheWarning
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource


@pytest.fixture
def entries():
    cell = 5.0 * np.eye(3)
    sodium_chloride = make_crystal([11, 17], [[0, 0, 0], [2.5, 2.5, 2.5]], cell, [True] * 3, structure_id="salt")
    doubled = make_crystal([17, 11, 17, 11], np.arange(12).reshape(4, 3) / 3, cell, [True] * 3, structure_id="double")
    iron = make_crystal([26], [[0, 0, 0]], cell, [True] * 3, structure_id="iron")
    return list(StructureListSource([sodium_chloride, doubled, iron]))


def test_features_depend_on_the_composition_alone(entries):
    features = composition_features(entries)
    assert features.shape == (3, 250)
    assert np.array_equal(features[0], features[1])
    assert not np.array_equal(features[0], features[2])


def test_features_are_matminers_statistics_and_the_fractions(entries):
    from matminer.featurizers.composition import ElementProperty
    from pymatgen.core import Composition

    features = composition_features(entries)
    featurizer = ElementProperty.from_preset("magpie", impute_nan=True)
    assert features[0, :132] == pytest.approx(np.array(featurizer.featurize(Composition("NaCl"))))
    assert featurizer.feature_labels()[0] == "MagpieData minimum Number"
    assert features[0, 0] == 11
    fractions = features[:, 132:]
    assert fractions[0, [10, 16]].tolist() == [0.5, 0.5]
    assert fractions.sum(axis=1).tolist() == [1.0, 1.0, 1.0]


def test_features_are_cached_under_their_key_and_a_damaged_cache_is_made_anew(entries, tmp_path, monkeypatch):
    from torch_geometric_crystal.benchmark.baselines import features as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = composition_features(entries, "salts", "key")
    (path,) = (tmp_path / "torch_geometric_crystal").glob("salts-composition*.npz")
    monkeypatch.setattr(module, "_magpie", None)
    assert np.array_equal(composition_features(entries, "salts", "key"), first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path.write_bytes(b"damaged")
    assert np.array_equal(composition_features(entries, "salts", "key"), first)


def test_features_that_cannot_be_cached_are_returned_with_a_warning(entries, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match="the features are not cached"):
        features = composition_features(entries, "salts", "key")
    assert np.array_equal(features, composition_features(entries))


def test_boosting_learns_and_repeats_itself():
    generator = np.random.default_rng(0)
    x = generator.random((300, 5))
    y = 3.0 * x[:, 0] - x[:, 1] ** 2
    first, again, other = (predict_from_composition(x[:250], y[:250], x[250:], seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(first - y[250:]).mean() < 0.3 * np.abs(y[250:] - y[:250].mean()).mean()


def test_a_classifier_gives_probabilities_of_the_class_one():
    x = np.linspace(0, 1, 200)[:, None]
    values = predict_from_composition(x, (x[:, 0] > 0.6).astype(float), np.array([[0.1], [0.9]]), "classification")
    assert 0 <= values[0] < 0.1 < 0.9 < values[1] <= 1


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="kind: expected one of 'regression', 'classification', received 'ranking'"):
        predict_from_composition(np.zeros((2, 1)), np.zeros(2), np.zeros((1, 1)), "ranking")


def test_mean_of_the_training_part_is_predicted_for_all():
    assert predict_mean(np.array([1.0, 2.0, 6.0]), 2).tolist() == [3.0, 3.0]


def test_the_mean_predictor_scores_as_the_leaderboards_dummy(tmp_path):
    task = load_task("matbench_phonons")
    scores = [run_fold(task, fold, RunConfig(model="mean"), tmp_path / str(fold)).record.score for fold in range(5)]
    assert np.mean(scores) == pytest.approx(323.9822, abs=1e-3)
    assert np.std(scores) == pytest.approx(17.7269, abs=1e-3)


def test_a_baseline_learns_from_the_whole_training_part(tmp_path):
    task = load_task("elastic_2015")
    record = run_fold(task, 0, RunConfig(model="mean"), tmp_path).record
    assert set(record.predictions.values()) == {float(np.mean(task.values[list(task.fold(0).train)]))}
    assert torch.get_num_threads() == 1
