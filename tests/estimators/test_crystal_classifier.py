import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import StratifiedKFold, cross_val_score

from torch_geometric_crystal.benchmark.checkpoint import save_checkpoint
from torch_geometric_crystal.estimators import CrystalClassifier, CrystalRegressor


def labels_of(structures):
    """Whether lithium or sodium is in it, or neither."""
    texts = []
    for structure in structures:
        numbers = structure.numbers if hasattr(structure, "numbers") else structure.atomic_numbers
        texts.append("lithium" if 3 in numbers else "sodium" if 11 in numbers else "neither")
    return np.array(texts)


@pytest.fixture(scope="module")
def classifier(settings, crystals):
    """A classifier of three classes, fitted; not to be changed."""
    structures, _ = crystals(48)
    longer = {"epochs": 40, "lr": 5e-3, "val_fraction": 0.2}
    return CrystalClassifier(**settings | longer).fit(structures, labels_of(structures))


def test_classes_are_learned(classifier, crystals):
    structures, _ = crystals(48)
    assert classifier.classes_.tolist() == ["lithium", "neither", "sodium"]
    assert classifier.score(structures, labels_of(structures)) > 0.8
    assert set(classifier.predict(structures)) <= set(classifier.classes_)


def test_probabilities_add_up_and_the_largest_is_predicted(classifier, crystals):
    structures, _ = crystals(7, seed=1)
    shares = classifier.predict_proba(structures)
    assert shares.shape == (7, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    assert (shares >= 0).all()
    np.testing.assert_array_equal(classifier.predict(structures), classifier.classes_[shares.argmax(axis=1)])


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [-1, 7], ["no", "yes"]])
def test_two_classes_of_any_kind_have_two_columns(crystals, labels, settings):
    structures, values = crystals(12)
    y = np.array(labels)[(values > np.median(values)).astype(int)]
    estimator = CrystalClassifier(**settings).fit(structures, y)
    assert estimator.classes_.tolist() == labels
    assert estimator.predict_proba(structures).shape == (12, 2)
    assert estimator.predict(structures).dtype == y.dtype


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_predict_the_same(classifier, crystals, duplicate):
    structures, _ = crystals(5, seed=1)
    np.testing.assert_array_equal(duplicate(classifier).predict_proba(structures), classifier.predict_proba(structures))


def test_saved_and_loaded_is_the_same_classifier(classifier, crystals, tmp_path):
    structures, _ = crystals(5, seed=1)
    classifier.save(tmp_path / "c.ckpt")
    loaded = CrystalClassifier.load(tmp_path / "c.ckpt")
    np.testing.assert_array_equal(loaded.predict_proba(structures), classifier.predict_proba(structures))
    np.testing.assert_array_equal(loaded.predict(structures), classifier.predict(structures))
    with pytest.raises(ValueError, match="path: expected a checkpoint for regression of crystals"):
        CrystalRegressor.load(tmp_path / "c.ckpt")


def test_numbers_are_the_labels_of_a_run_that_has_them(crystals, settings, tmp_path):
    structures, values = crystals(12)
    y = (values > np.median(values)).astype(int)
    classifier = CrystalClassifier(**settings).fit(structures, y)
    assert classifier.model_.card.classes == ("0", "1")
    save_checkpoint(tmp_path / "run.ckpt", classifier.model_.card, classifier.model_.state_dict())
    loaded = CrystalClassifier.load(tmp_path / "run.ckpt")
    assert loaded.classes_.tolist() == [0, 1]
    assert loaded.score(structures, y) == classifier.score(structures, y)


def test_cross_validation_scores_probabilities(crystals, settings):
    structures, values = crystals(16)
    y = (values > np.median(values)).astype(int)
    cv = StratifiedKFold(2)
    scores = cross_val_score(CrystalClassifier(**settings), structures, y, cv=cv, scoring="roc_auc")
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (["a", "b"], "y: expected as many targets as there are structures in X, 4, received 2"),
        (["a"] * 4, "y: expected at least two classes, received"),
        ([[0], [1], [0], [1]], r"y: expected one label for each structure, shape \(n,\)"),
        ([0.1, 0.7, 1.3, 2.9], "Unknown label type: continuous"),
    ],
)
def test_labels_that_do_not_fit_are_refused(crystals, y, message, settings):
    with pytest.raises(ValueError, match=message):
        CrystalClassifier(**settings).fit(crystals(4)[0], y)


def test_an_unfitted_classifier_says_so(crystals, settings):
    for method in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(clone(CrystalClassifier(**settings)), method)(crystals(2)[0])


def test_a_checkpoint_of_a_regression_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "r.ckpt")
    with pytest.raises(ValueError, match="path: expected a checkpoint for classification of crystals"):
        CrystalClassifier.load(tmp_path / "r.ckpt")
