"""JARVIS-DFT and the Materials Project set of MEGNet, cut as their published comparisons cut them.

Both were cut by the JARVIS tools: the records that have the target are numbered, shuffled by Python's ``random`` with
seed 123, and taken from both ends (`Choudhary and DeCost, 2021 <https://doi.org/10.1038/s41524-021-00650-1>`_;
`Taniai et al., 2024 <https://arxiv.org/abs/2403.11686>`_ list the sizes).
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torch_geometric_crystal.benchmark.tasks.task import Split, Task
from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.datasets.readers.jarvis_json import ID_KEYS, JarvisSource
from torch_geometric_crystal.datasets.readers.json_file import load_json
from torch_geometric_crystal.datasets.source import existing_file, parse_target

SPLIT_SEED = 123
HOLD_OUT = 0.1
"""Share of the records that validate, and of those that test."""


@dataclass(frozen=True)
class PublishedTarget:
    """A property and its published split.

    Args:
        keys: names that it has in the files, the usual one first.
        unit: its unit.
        sizes: crystals in the published training, validation and test part.
        preset: recipe of Crystalformer's paper for it.
        beside: properties that a record must have, too, to be counted; in the order of `keys`.
        by_file: whether the published split is given by lists of names, not by the seed.
    """

    keys: tuple[str, ...]
    unit: str
    sizes: tuple[int, int, int]
    preset: str
    beside: tuple[tuple[str, ...], ...] = ()
    by_file: bool = False


_FORMATION, _TOTAL, _GAP = ("formation_energy_peratom",), ("optb88vdw_total_energy",), ("optb88vdw_bandgap",)
_SIZES = (44578, 5572, 5572)

JARVIS_TARGETS = {
    "formation_energy": PublishedTarget(_FORMATION, "eV/atom", _SIZES, "crystalformer-jarvis", (_TOTAL, _GAP)),
    "total_energy": PublishedTarget(_TOTAL, "eV/atom", _SIZES, "crystalformer-jarvis", (_FORMATION, _GAP)),
    "opt_bandgap": PublishedTarget(_GAP, "eV", _SIZES, "crystalformer-jarvis", (_FORMATION, _TOTAL)),
    "mbj_bandgap": PublishedTarget(("mbj_bandgap",), "eV", (14537, 1817, 1817), "crystalformer-jarvis-mbj"),
    "ehull": PublishedTarget(("ehull",), "eV/atom", (44296, 5537, 5537), "crystalformer-jarvis"),
}
"""Targets of JARVIS-DFT 3D in its release of 18 August 2021 (``jdft_3d-8-18-2021.json``, dft_3d_2021)."""

_E_FORM, _PBE_GAP = ("e_form", "formation_energy_per_atom"), ("gap pbe", "band_gap")

MEGNET_TARGETS = {
    "e_form": PublishedTarget(_E_FORM, "eV/atom", (60000, 5000, 4239), "crystalformer", (_PBE_GAP,)),
    "bandgap": PublishedTarget(_PBE_GAP, "eV", (60000, 5000, 4239), "crystalformer", (_E_FORM,)),
    "bulk_modulus": PublishedTarget(
        ("bulk modulus", "K"), "log10(GPa)", (4664, 393, 393), "crystalformer", by_file=True
    ),
    "shear_modulus": PublishedTarget(
        ("shear modulus", "G"), "log10(GPa)", (4664, 392, 393), "crystalformer", by_file=True
    ),
}
"""Targets of the Materials Project set of MEGNet (2018): in the copy of the JARVIS tools (``megnet.json``), from which
the published splits were cut, and in the original ``mp.2018.6.1.json``."""


def load_jarvis_task(target: str, data_file: str | Path) -> Task:
    """Return a target of JARVIS-DFT with the published split.

    Args:
        target: one of ``JARVIS_TARGETS``.
        data_file: ``jdft_3d-8-18-2021.json``, plain, gzipped or zipped. Another release is cut in the same way, and its
            errors are not put beside the published ones.

    Raises:
        ValueError: for an unknown target, or a file that is not a list of records with it.
        FileNotFoundError: if there is no such file.
    """
    check_choice("target", target, tuple(JARVIS_TARGETS))
    chosen = JARVIS_TARGETS[target]
    table = _read_table(data_file, chosen)
    parts = jarvis_split(len(table.positions))
    fits = _sizes(parts) == chosen.sizes
    return _task(f"jarvis_{target}", "JARVIS-DFT 3D", chosen, table, parts, fits, _size_note(parts, chosen))


def load_megnet_task(target: str, data_file: str | Path, split_file: str | Path | None = None) -> Task:
    """Return a target of MEGNet's Materials Project set with the published split.

    Args:
        target: one of ``MEGNET_TARGETS``.
        data_file: ``megnet.json`` of the JARVIS tools or MEGNet's own ``mp.2018.6.1.json``, plain, gzipped or zipped.
        split_file: JSON with lists of names under ``train``, ``val`` and ``test``; needed for the moduli, whose
            published split is no function of a seed.

    Raises:
        ValueError: for an unknown target, a file that is not a list of records with it, or a missing `split_file`.
        FileNotFoundError: if there is no such file.
    """
    check_choice("target", target, tuple(MEGNET_TARGETS))
    chosen = MEGNET_TARGETS[target]
    if chosen.by_file and split_file is None:
        raise ValueError(
            f"split_file: the published split of {target} is given by names alone: put them into a JSON file "
            '{"train": [...], "val": [...], "test": [...]} and name it with --split-file'
        )
    table = _read_table(data_file, chosen)
    if split_file is not None:
        parts = _split_from_file(Path(split_file), table.ids)
        note = _size_note(parts, chosen)
    else:
        fixed = chosen.sizes if len(table.positions) == sum(chosen.sizes) else None
        parts = jarvis_split(len(table.positions), fixed)
        note = _size_note(parts, chosen)
        if fixed is not None and table.key != chosen.keys[0]:
            note = (
                "the sizes are the published ones, but the published split was cut from the copy of the JARVIS tools, "
                "whose order may be another one: not comparable with published errors"
            )
    fits = _sizes(parts) == chosen.sizes and (split_file is not None or table.key == chosen.keys[0])
    return _task(f"megnet_{target}", "the Materials Project set of MEGNet (2018)", chosen, table, parts, fits, note)


def jarvis_split(number: int, sizes: Sequence[int] | None = None) -> list[list[int]]:
    """Cut 0 .. number - 1 as the JARVIS tools do.

    The numbers are shuffled by ``random.seed(123); random.shuffle``. The first ones train, the last ones test, those
    before them validate.

    Args:
        number: how many records have the target.
        sizes: of the training, validation and test part. Default: 0.8, 0.1 and 0.1 of all, rounded down.

    Returns:
        Training, validation and test part, in the shuffled order.

    Raises:
        ValueError: if there are too few records for three parts.
    """
    held = int(HOLD_OUT * number)
    train, val, test = sizes or (int((1.0 - HOLD_OUT - HOLD_OUT) * number), held, held)
    check_argument(min(train, val, test) >= 1 and train + val + test <= number, "records", "enough for a split", number)
    order = list(range(number))
    random.Random(SPLIT_SEED).shuffle(order)
    return [order[:train], order[-(val + test) : -test], order[-test:]]


@dataclass(frozen=True)
class _Table:
    """The records of a file that have the target: the file's key for it, their positions, names and values."""

    path: Path
    key: str
    total: int
    positions: list[int]
    ids: list[str]
    values: np.ndarray


def _read_table(data_file: str | Path, target: PublishedTarget) -> _Table:
    path = existing_file(data_file)
    records = load_json(path)
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path}: expected a list of records with a structure and properties each")
    key = _find_key(path, records[0], target.keys)
    needed = [key, *(_find_key(path, records[0], keys) for keys in target.beside)]
    rows = [[_number(record.get(name)) for name in needed] for record in records]
    positions = [k for k, row in enumerate(rows) if not any(math.isnan(value) for value in row)]
    ids = [next((str(records[k][name]) for name in ID_KEYS if name in records[k]), str(k)) for k in positions]
    return _Table(path, key, len(records), positions, ids, np.array([rows[k][0] for k in positions]))


def _find_key(path: Path, record: Mapping[str, Any], keys: Sequence[str]) -> str:
    for key in keys:
        if key in record:
            return key
    raise ValueError(f"{path}: its first record has no {' or '.join(map(repr, keys))}; it has {', '.join(record)}")


def _number(value: Any) -> float:
    """A value as the JARVIS tools take it: NaN for what is no finite number, such as ``"na"``."""
    if isinstance(value, str) and value.strip().lower() != "na":
        return math.nan
    try:
        return parse_target(value)
    except ValueError:
        return math.nan


def _split_from_file(path: Path, ids: Sequence[str]) -> list[list[int]]:
    content = load_json(existing_file(path))
    keys = ("train", "val", "test")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise ValueError(f"{path}: expected lists of names under train, val and test")
    position = {name: k for k, name in enumerate(ids)}
    names = [[str(name) for name in content[key]] for key in keys]
    absent = [name for part in names for name in part if name not in position]
    if absent:
        raise ValueError(f"{path}: {len(absent)} names have no record with this target, the first {absent[0]!r}")
    every = [name for part in names for name in part]
    if len(set(every)) != len(every) or not all(names):
        raise ValueError(f"{path}: a part is empty, or a name stands in it twice")
    return [[position[name] for name in part] for part in names]


def _sizes(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(len(part) for part in parts)


def _size_note(parts: Sequence[Sequence[int]], target: PublishedTarget) -> str:
    found, published = (" / ".join(map(str, sizes)) for sizes in (_sizes(parts), target.sizes))
    if found == published:
        return f"the published split, {found}"
    return f"ANOTHER RELEASE: {found} crystals where the published split has {published}; not comparable with it"


def _task(
    name: str, data: str, target: PublishedTarget, table: _Table, parts: list[list[int]], fits: bool, note: str
) -> Task:
    train, val, test = (tuple(part) for part in parts)
    return Task(
        name=name,
        statement=(
            f"{data}, {table.path.name}, {table.key} of {len(table.ids)} of {table.total} records, training, "
            f"validation and test part by {'a list of names' if target.by_file else 'seed 123'}: {note}"
        ),
        official=False,
        published_as=name if fits else "",
        source=JarvisSource(table.path, table.key),
        positions=tuple(table.positions),
        ids=tuple(table.ids),
        values=table.values,
        target=table.key,
        unit=target.unit,
        kind="regression",
        splits=(Split(train, test, val),),
    )
