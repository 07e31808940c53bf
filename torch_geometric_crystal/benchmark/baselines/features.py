"""Features of the composition: matminer's Magpie statistics and the fraction of each element."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from torch_geometric_crystal.checks import MissingDependencyError
from torch_geometric_crystal.datasets.atomic_write import atomic_write
from torch_geometric_crystal.datasets.cache import CacheWarning, cache_path, default_cache_folder
from torch_geometric_crystal.datasets.fingerprint import hash_text
from torch_geometric_crystal.datasets.source import Entry

NUM_ELEMENTS = 118
FORMAT = "composition features 1"


def composition_features(entries: Sequence[Entry], name: str = "crystals", key: str | None = None) -> np.ndarray:
    """Return features that depend on the composition alone.

    The first 132 are matminer's ``ElementProperty`` with the preset ``magpie``: minimum, maximum, range, mean, mean
    deviation and mode of 22 properties of the elements (`Ward et al., npj Comput. Mater. 2, 16028 (2016)
    <https://doi.org/10.1038/npjcompumats.2016.28>`_). The other 118 are the elements' fractions.

    Args:
        entries: n crystals.
        name: begins the name of the cache file.
        key: what identifies the crystals, such as the fingerprint of their source; the features are cached under it.
            None for no cache.

    Shapes:
        - result: (n, 250) float64.

    Raises:
        MissingDependencyError: without matminer.
        InvalidStructureError: if a crystal cannot be read.

    Warns:
        CacheWarning: if the cache cannot be written.
    """
    path = None if key is None else _cache_file(name, key)
    if path is not None and (cached := _read(path, len(entries))) is not None:
        return cached
    fractions = np.stack([_fractions(entry) for entry in entries])
    unique, index = np.unique(fractions.round(9), axis=0, return_inverse=True)
    features = np.concatenate([_magpie(unique)[index.reshape(-1)], fractions], axis=1)
    if path is not None:
        try:
            with atomic_write(path) as file:
                np.savez_compressed(file, features=features)
        except OSError as error:
            warnings.warn(f"the features are not cached in {path.parent}: {error}", CacheWarning, stacklevel=2)
    return features


def _fractions(entry: Entry) -> np.ndarray:
    counts = torch.bincount(entry.load().z, minlength=NUM_ELEMENTS + 1)[1:].double().numpy()
    return counts / counts.sum()


def _magpie(fractions: np.ndarray) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from matminer.featurizers.composition import ElementProperty
    except ImportError as error:
        raise MissingDependencyError("matminer", "matbench") from error
    from pymatgen.core import Composition, Element

    symbols = [Element.from_Z(z).symbol for z in range(1, NUM_ELEMENTS + 1)]
    compositions = [Composition({symbols[k]: row[k] for k in np.flatnonzero(row)}) for row in fractions]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        featurizer = ElementProperty.from_preset("magpie", impute_nan=True)
        featurizer.set_n_jobs(1)
        return np.array(featurizer.featurize_many(compositions, pbar=False), dtype=np.float64)


def _cache_file(name: str, key: str) -> Path:
    from importlib.metadata import version

    full = hash_text(FORMAT, key, version("matminer"), version("pymatgen"))
    return cache_path(default_cache_folder(), f"{name}-composition", full).with_suffix(".npz")


def _read(path: Path, number: int) -> np.ndarray | None:
    """The features in a cache file; None if there is none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            features = file["features"]
    except Exception:
        # numpy and zipfile raise many types for a damaged file; making it anew is the remedy for all of them.
        return None
    return features if len(features) == number else None
