"""The official phonon task of Matbench."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.bundled import BundledDataset, split_by_hash

NUM_FOLDS = 5
FOLD_SEED = 18012019
"""``random_state`` of the folds of Matbench v0.1 (the metadata of matbench_v0.1_validation.json)."""


class MatbenchPhonons(BundledDataset):
    """Frequency of the highest-frequency optical phonon peak, 1,265 crystals: the file of Matbench v0.1 itself.

    Target ``last phdos peak`` in 1/cm, computed by density functional perturbation theory (Petretto et al., 2018,
    doi:10.1038/sdata.2018.65). Ids are Matbench's: ``mb-phonons-0001`` to ``mb-phonons-1265``. Arguments as
    `BundledDataset`.
    """

    file_name = "matbench_phonons.json.gz"
    sha256 = "4db551f21ec5f577e6202725f10e34dfc509aa7df3a6bdaac497da7f6dbbb9b3"
    units: ClassVar[Mapping[str, str]] = {"last phdos peak": "1/cm"}
    citation = (
        "G. Petretto, S. Dwaraknath, H. P. C. Miranda, D. Winston, M. Giantomassi, M. J. van Setten, X. Gonze, K. "
        "A. Persson, G. Hautier, G.-M. Rignanese, High-throughput density-functional perturbation theory phonons "
        "for inorganic materials, Scientific Data 5, 180065 (2018), doi:10.1038/sdata.2018.65; A. Dunn, Q. Wang, "
        "A. Ganose, D. Dopp, A. Jain, Benchmarking materials property prediction methods: the Matbench test set "
        "and Automatminer reference algorithm, npj Computational Materials 6, 138 (2020), "
        "doi:10.1038/s41524-020-00406-3"
    )
    split_sizes: ClassVar[Mapping[str, int]] = {"total": 1265}
    task = "phonons"

    @property
    def folds(self) -> list[dict[str, list[int]]]:
        """Indices ``train`` and ``test`` of the five official folds."""
        check_argument(len(self) == self.split_sizes["total"], "dataset", "all 1265 structures", len(self))
        return k_folds(len(self))

    def split(self, fold: int = 0, num_val: int = 100) -> dict[str, list[int]]:
        """Indices ``train``, ``val`` and ``test`` of one fold.

        ``test`` is the official test part. Of the official training part, the `num_val` ids whose SHA-1 sorts first
        are ``val``.

        Args:
            fold: 0 to 4.
            num_val: Size of the validation part, 0 or more.

        Raises:
            ValueError: if `fold` or `num_val` is out of range, or crystals are missing.
        """
        check_argument(fold in range(NUM_FOLDS), "fold", "0 to 4", fold)
        parts = self.folds[fold]
        given = parts["train"]
        check_argument(0 <= num_val < len(given), "num_val", f"0 to {len(given) - 1}", num_val)
        ids = self.structure_ids
        halves = split_by_hash([ids[k] for k in given], {"val": num_val, "train": len(given) - num_val})
        return {
            "train": sorted(given[k] for k in halves["train"]),
            "val": sorted(given[k] for k in halves["val"]),
            "test": parts["test"],
        }


def k_folds(number: int, num_folds: int = NUM_FOLDS, seed: int = FOLD_SEED) -> list[dict[str, list[int]]]:
    """Folds as scikit-learn's ``KFold(num_folds, shuffle=True, random_state=seed)`` makes them."""
    order = np.arange(number)
    np.random.RandomState(seed).shuffle(order)
    folds = []
    for part in np.array_split(order, num_folds):
        is_test = np.zeros(number, dtype=bool)
        is_test[part] = True
        folds.append({"train": np.flatnonzero(~is_test).tolist(), "test": np.flatnonzero(is_test).tolist()})
    return folds
