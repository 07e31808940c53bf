"""Matbench's five-fold protocol on data that are not Matbench's: the bundled sets and compact stores."""

from pathlib import Path

import numpy as np

from torch_geometric_crystal.benchmark.sources import bundled_datasets
from torch_geometric_crystal.benchmark.tasks.task import Split, Task
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.bundled import FILES, verified_file
from torch_geometric_crystal.datasets.compact_store import CompactStore
from torch_geometric_crystal.datasets.matbench_phonons import FOLD_SEED, NUM_FOLDS, k_folds
from torch_geometric_crystal.datasets.readers.matbench_json import MatbenchSource
from torch_geometric_crystal.datasets.source import Source, check_names

PROTOCOL = f"KFold({NUM_FOLDS}, shuffle=True, random_state={FOLD_SEED}), as Matbench cuts its regression tasks"
NOTES = {
    "matbench_mp_gap": "the structures and gaps of Matbench's mp_gap in its order, coordinates in single precision and "
    "lattices as lengths and angles, so not the official file; other targets were joined from other lists",
}
"""What is in a compact store, by the stem of its file."""
UNITS = {"matbench_mp_gap": {"gap": "eV", "e_form": "eV/atom", "log10": "log10 GPa"}}
"""Units of a compact store's targets by how their names begin, by the stem of its file."""


def load_five_fold_task(name: str, data_dir: str | Path | None = None) -> Task:
    """Return Matbench's protocol on other data, under their own name.

    Args:
        name: a bundled data set (``flla_2015``), or a compact store ``<name>.npz`` or ``matbench_<name>.npz`` in
            `data_dir` (``mp_gap``); after a colon the target (``elastic_2015:log10_G_VRH``), else the first one.
        data_dir: folder of compact stores.

    Raises:
        ValueError: for an unknown target, or fewer crystals than folds.
        FileNotFoundError: if the name is neither a bundled set nor a file in `data_dir`.
    """
    stem, _, target = name.partition(":")
    bundled = bundled_datasets()
    if stem in bundled:
        dataset = bundled[stem]
        target = target or next(iter(dataset.units))
        check_names([target], list(dataset.units), stem)
        source: Source = MatbenchSource(verified_file(FILES / dataset.file_name, dataset.sha256), target)
        return _task(stem, target, dataset.units[target], source, f"the bundled set {stem}")
    path = _store_file(stem, data_dir)
    available = CompactStore(path).target_names
    check_argument(len(available) > 0, "task", "a compact store with targets", str(path))
    target = target or available[0]
    unit = next((unit for start, unit in UNITS.get(path.stem, {}).items() if target.startswith(start)), "")
    note = f" ({NOTES[path.stem]})" if path.stem in NOTES else ""
    return _task(stem, target, unit, CompactStore(path, target), f"the compact store {path.name}{note}")


def _store_file(stem: str, data_dir: str | Path | None) -> Path:
    from torch_geometric_crystal.benchmark.tasks.official import official_tasks

    names = [f"{stem}.npz", f"matbench_{stem}.npz"]
    paths = [] if data_dir is None else [Path(data_dir).expanduser() / name for name in names]
    found = [path for path in paths if path.is_file()]
    if found:
        return found[0]
    where = f"; {' and '.join(names)} are not in {data_dir}" if paths else "; a compact store needs --data-dir"
    raise FileNotFoundError(
        f"task: {stem!r} is neither an official task ({', '.join(official_tasks())}) nor a bundled set "
        f"({', '.join(bundled_datasets())}){where}"
    )


def _task(stem: str, target: str, unit: str, source: Source, data: str) -> Task:
    entries = list(source)
    values = np.array([np.nan if entry.targets is None else entry.targets[0] for entry in entries])
    positions = np.flatnonzero(~np.isnan(values))
    check_argument(len(positions) >= NUM_FOLDS, "task", f"at least {NUM_FOLDS} crystals with {target}", len(positions))
    known = "" if len(positions) == len(values) else f", the {len(positions)} of {len(values)} crystals that have it"
    return Task(
        name=f"{stem}:{target}",
        statement=f"not a Matbench task: the five-fold protocol of Matbench on {data}, {target}{known}; {PROTOCOL}",
        official=False,
        published_as="",
        source=source,
        positions=tuple(positions.tolist()),
        ids=tuple(entries[k].structure_id for k in positions),
        values=values[positions],
        target=target,
        unit=unit,
        kind="regression",
        splits=tuple(Split(tuple(fold["train"]), tuple(fold["test"])) for fold in k_folds(len(positions))),
    )
