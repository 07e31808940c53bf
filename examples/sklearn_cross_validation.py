"""A crystal model in scikit-learn's tools.

``CrystalRegressor`` takes pymatgen structures (or ASE atoms) where other estimators take a table, so that cross
validation, searches over settings and pipelines work as ever. One sees, for the bulk moduli of small crystals of
elastic_2015: the error of three-fold cross validation beside that of the mean, a small search over the learning rate,
and an estimator that was saved and loaded again.

    python examples/sklearn_cross_validation.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split

from torch_geometric_crystal.data import to_structure
from torch_geometric_crystal.datasets import Elastic2015
from torch_geometric_crystal.estimators import CrystalRegressor


def small_crystals(number: int, largest: int = 6) -> tuple[list, np.ndarray]:
    """The first crystals of the set with at most so many atoms, and the logarithms of their bulk moduli, log10(GPa)."""
    dataset = Elastic2015(target="log10(K_VRH)")
    chosen = [data for data in dataset if data.num_nodes <= largest][:number]
    return [to_structure(data) for data in chosen], np.array([float(data.y) for data in chosen])


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 crystals, 10 epochs")
    parser.add_argument("--crystals", type=int, default=180)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    number, epochs = (60, 10) if arguments.quick else (arguments.crystals, arguments.epochs)

    structures, moduli = small_crystals(number)
    print(f"{len(structures)} crystals, such as {structures[0].reduced_formula} and {structures[-1].reduced_formula}")
    estimator = CrystalRegressor(
        model_options={"channels": 32, "num_blocks": 1, "num_heads": 4, "num_basis": 32},
        neighborhood={"tol": 1e-2},
        epochs=epochs,
        batch_size=16,
        lr=3e-3,
        recipe={"averaging_epochs": epochs // 5},
        seed=arguments.seed,
        device="cpu",
    )

    folds = KFold(3, shuffle=True, random_state=arguments.seed)
    scoring = "neg_mean_absolute_error"
    errors = -cross_val_score(estimator, structures, moduli, cv=folds, scoring=scoring)
    baseline = -cross_val_score(DummyRegressor(), np.zeros((len(moduli), 1)), moduli, cv=folds, scoring=scoring)
    print(f"mean absolute error of three folds, log10(GPa): {' '.join(f'{error:.3f}' for error in errors)}")
    print(f"predicting the mean:                            {' '.join(f'{error:.3f}' for error in baseline)}")

    train, test, train_moduli, test_moduli = train_test_split(
        structures, moduli, test_size=0.2, random_state=arguments.seed
    )
    search = GridSearchCV(estimator, {"lr": [1e-3, 5e-3]}, cv=2, scoring=scoring).fit(train, train_moduli)
    print(f"\nlearning rate chosen: {search.best_params_['lr']:g}")
    print(f"R^2 on crystals kept apart: {search.best_estimator_.score(test, test_moduli):.2f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moduli.ckpt"
        search.best_estimator_.save(path)
        loaded = CrystalRegressor.load(path)
    for structure, modulus, value in list(zip(test, test_moduli, loaded.predict(test), strict=True))[:5]:
        print(f"    {structure.reduced_formula:12s} {10**modulus:6.1f} GPa, predicted {10**value:6.1f} GPa")


if __name__ == "__main__":
    main()
