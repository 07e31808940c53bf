"""scikit-learn's own checks of estimators, as far as they apply to structures.

Those about the interface are run as they are. Of the others, each with the reason why it does not apply:

* The checks that fit or predict on arrays of numbers (all of ``check_fit2d_*``, ``check_fit1d``, ``check_*_train``,
  ``check_methods_*_invariance``, ``check_estimators_dtypes``, ``check_estimators_nan_inf``, ``check_dtype_object``,
  ``check_complex_data``, ``check_estimator_sparse_*``, ``check_readonly_memmap_input``, ``check_dict_unchanged``,
  ``check_pipeline_consistency``, ``check_estimators_pickle``, ``check_estimators_fit_returns_self``,
  ``check_fit_idempotent``,
  ``check_dont_overwrite_parameters``, ``check_estimators_overwrite_params``, ``check_fit_score_takes_y``,
  ``check_fit_check_is_fitted``, ``check_requires_y_none``, ``check_supervised_y_2d``, ...): the input is a list of
  structures. Those whose claim holds for structures too are repeated below with structures.
* ``check_n_features_in*`` and ``check_dataframe_column_names_consistency``: a structure has no number of features.
* ``check_sample_weight*`` and ``check_class_weight*``: there are no weights.
* ``check_supervised_y_no_nan``: a missing target is left out of the loss; an infinite one is refused.
* Checks of transformers, clusterers, outlier detectors and linear models: it is none.
"""

import copy

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from torch_geometric_crystal.estimators import CrystalClassifier, CrystalRegressor

CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimators_unfitted",
    "check_estimators_partial_fit_n_features",
)
ESTIMATORS = (CrystalRegressor, CrystalClassifier)


def check_named(name):
    """The check; None where this version of scikit-learn has none of that name."""
    return getattr(estimator_checks, name, None)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", CHECKS)
def test_check_of_scikit_learn_passes(name, estimator):
    check = check_named(name)
    if check is None:
        pytest.skip("not in this version of scikit-learn")
    check(estimator.__name__, estimator())


def test_most_checks_are_known_to_this_version():
    assert sum(check_named(name) is not None for name in CHECKS) >= 9


def test_a_regressor_has_no_decision_function():
    assert not hasattr(CrystalRegressor(), "decision_function")
    assert not hasattr(CrystalRegressor(), "predict_proba")


# The checks on arrays whose claims hold for structures, repeated with structures.


def test_fitting_changes_no_parameter_and_no_input(regressor, crystals):
    structures, values = crystals(8)
    before = copy.deepcopy(structures), values.copy()
    estimator = regressor(epochs=1)
    parameters = copy.deepcopy(estimator.get_params())
    public = set(vars(estimator))
    estimator.fit(structures, values)
    assert estimator.get_params() == parameters
    assert structures == before[0]
    np.testing.assert_array_equal(values, before[1])
    assert all(name.endswith("_") for name in set(vars(estimator)) - public)


def test_predicting_changes_no_attribute(fitted, crystals):
    before = {name: copy.deepcopy(value) for name, value in vars(fitted).items() if name != "model_"}
    model = fitted.model_
    fitted.predict(crystals(3)[0])
    assert {name: value for name, value in vars(fitted).items() if name != "model_"} == before
    assert fitted.model_ is model


def test_predictions_follow_the_order_of_the_structures_and_subsets_agree(fitted, crystals):
    structures, _ = crystals(9)
    expected = fitted.predict(structures)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(fitted.predict([structures[i] for i in order]), expected[order], rtol=1e-5)
    np.testing.assert_allclose(fitted.predict(structures[2:4]), expected[2:4], rtol=1e-5)


def test_fitted_is_told_from_unfitted(regressor, fitted):
    check_is_fitted(fitted)
    with pytest.raises(NotFittedError):
        check_is_fitted(regressor())
