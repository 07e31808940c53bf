"""Data sets by name or path, cut into training, validation and test parts."""

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset
from torch_geometric.data import Data

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.datasets.processing import StructureWarning

PARTS = ("train", "val", "test")
DEFAULT_SPLIT = {"seed": 0, "val_fraction": 0.1, "test_fraction": 0.1}


@dataclass(frozen=True)
class CrystalParts:
    """Crystals with their graphs, in three parts, and what their targets are.

    Args:
        parts: crystals by ``"train"``, ``"val"`` and ``"test"``: lists, or parts of a graph store.
        target_names: names of the columns of y.
        units: their units; empty where unknown.
        classes: names of the classes that y numbers, in a classification.
        split: ``seed``, ``val_fraction`` and ``test_fraction`` of a random split and a hash of names and targets of all
            ``structures`` that were cut, in order; empty where the data have a split of their own.
        fold: number of the fold, where these are the parts of a benchmark's.
    """

    parts: dict[str, Any]
    target_names: tuple[str, ...]
    units: tuple[str, ...]
    classes: tuple[str, ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    fold: int | None = None


def bundled_datasets() -> dict[str, Any]:
    """Return the data sets that are part of the package, by the name that the command line knows them by."""
    from torch_geometric_crystal.datasets import FLLA2015, Carbon24, Elastic2015, MatbenchPhonons, MP20Val

    return {
        "flla_2015": FLLA2015,
        "elastic_2015": Elastic2015,
        "matbench_phonons": MatbenchPhonons,
        "carbon_24": Carbon24,
        "mp_20_val": MP20Val,
    }


def open_dataset(
    data: str,
    targets: Sequence[str],
    transform: Callable | None,
    progress: bool = False,
    level: str = "crystal",
    classes: Sequence[str] | None = None,
) -> Any:
    """Open a bundled data set by name or any other by path, with `transform` applied once and cached.

    Args:
        data: a bundled set's name, a path that :class:`~torch_geometric_crystal.datasets.CrystalDataset` reads, or a
            graph store, whose crystals stay on the disk.
        targets: names of the targets; the first that the data set has if none.
        transform: for a model, ``model.neighborhood()``.
        progress: whether to show a bar while the graphs are made.
        level: ``"crystal"``, or ``"atom"`` for targets with a value for each atom.
        classes: for a classification names of the classes, empty for those that the data set has; None for numbers.

    Returns:
        The data set; its attribute ``classes`` has the names of the classes, none if targets are numbers.

    Raises:
        ValueError: if the data set has no targets, not those, or none that can be read so.
        FileNotFoundError: if `data` is neither a bundled name nor a path.
    """
    from torch_geometric_crystal.datasets import CrystalDataset, LabelSource, OnDiskCrystals
    from torch_geometric_crystal.datasets.graph_store import is_graph_store
    from torch_geometric_crystal.datasets.labels import open_level

    bundled = bundled_datasets()
    settings: dict[str, Any] = {"pre_transform": transform, "log": progress}
    labelled = level != "crystal" or classes is not None
    if data in bundled:
        check_argument(not labelled, "data", "a set with classes or values of each atom", f"{data}, which has neither")
        names = list(targets) or [next(iter(bundled[data].units))]
        dataset: Any = bundled[data](target=names, **settings)
        dataset.classes = ()
        return dataset
    if is_graph_store(data):
        check_argument(not labelled, "data", "a source of classes or values of each atom", f"{data}, a graph store")
        dataset = OnDiskCrystals(data, list(targets) or None)
        dataset.check_transform(transform)
        if not targets and len(dataset.target_names) > 1:
            dataset = OnDiskCrystals(data, dataset.target_names[:1])
        dataset.classes = ()
        return dataset
    with _naming_bundled_sets(data):
        source = open_level(data, list(targets) or None, level)
        if not targets and len(source.target_names) > 1:
            source = open_level(data, source.target_names[0], level)
    labels = LabelSource(source, level=level, classes=classes) if labelled else None
    dataset = CrystalDataset(labels or source, on_error="skip", **settings)
    dataset.classes = (labels.classes if labels is not None else None) or ()
    return dataset


def open_unlabelled(data: str, model: Any) -> Any:
    """Open a data set with a model's graphs, whatever its targets are, and leave out what the model cannot take.

    Args:
        data: as in :func:`open_dataset`.
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it.

    Raises:
        FileNotFoundError: if `data` is neither a bundled name nor a path.
    """
    from torch_geometric_crystal.benchmark.prediction import TransformOfKnownElements, make_transform
    from torch_geometric_crystal.datasets import CrystalDataset, UnlabelledSource, open_source
    from torch_geometric_crystal.datasets.graph_store import is_graph_store

    if data in bundled_datasets() or is_graph_store(data):
        return open_dataset(data, (), make_transform(model), progress=True)
    with _naming_bundled_sets(data):
        source = UnlabelledSource(open_source(data))
    return CrystalDataset(source, pre_transform=TransformOfKnownElements(model), on_error="skip", log=True)


@contextlib.contextmanager
def _naming_bundled_sets(data: str) -> Iterator[None]:
    """Say of data that are not there which names there are."""
    try:
        yield
    except FileNotFoundError as error:
        known = ", ".join(bundled_datasets())
        where = "" if Path(data).is_absolute() else f" (relative paths begin at {Path.cwd()})"
        raise FileNotFoundError(f"data: {data!r} is neither a path nor one of {known}{where}") from error


def load_parts(
    data: str,
    targets: Sequence[str],
    transform: Callable | None,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    progress: bool = False,
    level: str = "crystal",
    classes: Sequence[str] | None = None,
) -> CrystalParts:
    """Open a data set with targets and cut it: as its authors did where it has a split, else at random by `seed`.

    Args:
        data: as in :func:`open_dataset`.
        targets: as in :func:`open_dataset`.
        transform: as in :func:`open_dataset`.
        seed: seed of a random split.
        val_fraction: share to validate on, in a random split.
        test_fraction: share to test on, in a random split.
        progress: whether to show a bar while the graphs are made.
        level: as in :func:`open_dataset`.
        classes: as in :func:`open_dataset`.

    Raises:
        ValueError: if there are no targets, or too few crystals to split.
    """
    from torch_geometric_crystal.datasets import OnDiskCrystals

    _check_targets(data, targets, level)
    dataset = open_dataset(data, targets, transform, progress, level, classes)
    names = tuple(dataset.target_names)
    check_argument(len(names) > 0, "data", "crystals with at least one target to train on or compare with", data)
    known, hashes = _read_labels(dataset)
    _check_known(dataset, names, known)
    units = dict(getattr(dataset, "units", {}))
    split: dict[str, Any] = dataset.split() if hasattr(dataset, "split") else {}
    drawn: dict[str, Any] = {}
    if set(split) != set(PARTS):
        drawn = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
        labelled = _labelled(data, known)
        cut = random_split(len(labelled), val_fraction, test_fraction, seed)
        split = {part: labelled[indices].tolist() for part, indices in cut.items()}
        drawn["structures"] = hashlib.sha256(b"".join(hashes[index] for index in labelled)).hexdigest()
    _warn_of_absent(names, known, split)
    if isinstance(dataset, OnDiskCrystals):
        on_disk: dict[str, Any] = {part: dataset.index_select(split[part]) for part in PARTS}
        return CrystalParts(on_disk, names, ("",) * len(names), split=drawn)
    parts = {part: [dataset[int(index)] for index in split[part]] for part in PARTS}
    return CrystalParts(parts, names, tuple(units.get(name, "") for name in names), dataset.classes, drawn)


def _read_labels(dataset: Any) -> tuple[NDArray[np.bool_], list[bytes]]:
    """Which targets of each crystal have a value, (n, T), and a hash of its name and targets."""
    labels = dataset.with_fields("y") if hasattr(dataset, "with_fields") else dataset
    rows, hashes = [], []
    for name, index in zip(dataset.structure_ids, range(len(labels)), strict=True):
        y = labels[index].y
        rows.append((~y.isnan()).any(dim=0).numpy())
        hashes.append(hashlib.sha256(name.encode() + y.numpy().tobytes()).digest())
    return np.stack(rows) if rows else np.zeros((0, len(dataset.target_names)), dtype=bool), hashes


def _labelled(data: str, known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the crystals with a value of any target; the others are not split."""
    labelled = np.flatnonzero(known.any(axis=1))
    if len(labelled) < len(known):
        text = f"{data}: {len(known) - len(labelled)} of {len(known)} crystals have no value of any target: left out"
        warnings.warn(text, StructureWarning, stacklevel=3)
    return labelled


def _warn_of_absent(names: Sequence[str], known: NDArray[np.bool_], split: Mapping[str, Sequence[int]]) -> None:
    """Warn of targets of which a part has no value."""
    for part in PARTS:
        if len(split[part]) > 0:
            absent = _absent(names, known[np.asarray(split[part])])
            if absent:
                warnings.warn(f"no crystal of the {part} part has a value of {absent}", StructureWarning, stacklevel=3)


def _absent(names: Sequence[str], known: NDArray[np.bool_]) -> str:
    found: Any = known.any(axis=0).tolist()
    return ", ".join(repr(name) for name, has_value in zip(names, found, strict=True) if not has_value)


def _check_known(dataset: Any, names: Sequence[str], known: NDArray[np.bool_]) -> None:
    """Refuse targets without a single value, and say what was wrong with those that were left out."""
    absent = _absent(names, known)
    if not absent:
        return
    left_out = f"; left out was {': '.join(dataset.errors[0])}" if dataset.errors else ""
    raise ValueError(f"target: no crystal has a value of {absent}{left_out}")


def _check_targets(data: str, targets: Sequence[str], level: str) -> None:
    """Raise ``ValueError`` where no target is chosen, before graphs are made."""
    from torch_geometric_crystal.datasets.graph_store import is_graph_store
    from torch_geometric_crystal.datasets.labels import open_level

    if targets or data in bundled_datasets() or is_graph_store(data) or not Path(data).expanduser().exists():
        return
    source = open_level(data, level=level)
    if source.target_names:
        return
    available = ", ".join(repr(name) for name in source.available_targets)
    remedy = f"choose one with --target: it has {available}" if available else "put the values into an id_prop.csv"
    raise ValueError(f"data: expected crystals with at least one target to train on or compare with: {data}. {remedy}")


def random_split(number: int, val_fraction: float, test_fraction: float, seed: int) -> dict[str, list[int]]:
    """Cut 0 .. number - 1 at random into parts, each sorted; a share above 0 gives at least one crystal.

    Raises:
        ValueError: if no crystal is left to train on.
    """
    num_val, num_test = (max(1, round(number * f)) if f > 0 else 0 for f in (val_fraction, test_fraction))
    check_argument(num_val + num_test < number, "data", "more crystals than validation and test take", number)
    order = np.random.default_rng(seed).permutation(number)
    cut = {"val": order[:num_val], "test": order[num_val : num_val + num_test], "train": order[num_val + num_test :]}
    return {part: sorted(cut[part].tolist()) for part in PARTS}


def split_of_training(card: Any, part: str, **given: float | None) -> dict[str, Any]:
    """Return how a model's training cut data without a split of its own, for :func:`load_parts`.

    Args:
        card: the model's card; one that does not say it is taken to have had the defaults.
        part: the part that is wanted; for ``"all"`` nothing is cut off, so that few crystals do.
        **given: ``seed``, ``val_fraction``, ``test_fraction`` to take in place of those of training; None for those.
    """
    if part == "all":
        return {"seed": 0, "val_fraction": 0.0, "test_fraction": 0.0}
    cut = {**DEFAULT_SPLIT, **card.split, **{name: value for name, value in given.items() if value is not None}}
    return {name: cut[name] for name in DEFAULT_SPLIT}


def refuse_other_crystals(card: Any, parts: CrystalParts, part: str, **given: float | None) -> None:
    """Raise ``ValueError`` for a part drawn from other crystals than the training's, which may hold some of the latter.

    Args:
        card: the model's card; one without a random split is trusted.
        parts: from :func:`load_parts`.
        part: the part that is wanted.
        **given: as for :func:`split_of_training`; who gives all of them knows what is drawn.
    """
    same = card.split.get("structures") == parts.split.get("structures")
    if part == "all" or not card.split or not parts.split or same or None not in given.values():
        return
    raise ValueError(
        f"split: expected the crystals that the training drew its parts from, received others: their {part} part may "
        "hold some that the model was trained on. Take all where it has seen none (--split all), or the training's "
        "data, or give seed and both shares of another split"
    )


def choose_part(parts: CrystalParts, part: str) -> Sequence[Data]:
    """Return one part, or with ``"all"`` the crystals of all of them.

    Raises:
        ValueError: for another name, or if the part is empty.
    """
    check_choice("split", part, (*PARTS, "all"))
    chosen: Any = parts.parts[part] if part != "all" else ConcatDataset([parts.parts[name] for name in PARTS])
    check_argument(len(chosen) > 0, "split", "a part with crystals", f"{part!r}, which has none")
    return chosen
