"""Targets that are not one number a crystal: classes, by number or by name, values of each atom, or none."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.datasets.fingerprint import hash_text
from torch_geometric_crystal.datasets.open_source import open_source
from torch_geometric_crystal.datasets.readers.jarvis_json import ID_KEYS, STRUCTURE_KEYS, JarvisSource
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    check_names,
    faulty_entry,
    is_absent,
    labelled_entry,
    parse_target,
)

LEVELS = ("crystal", "atom")
_ATOM_REMEDY = "Give a list with a number for each atom, null where it is unknown"


class LabelSource(Source):
    """The crystals of a source with their targets read as classes, as values of each atom, or as both.

    A class is a text or a whole number. The classes are numbered in order: by size if all are numbers, else as texts
    sort. That number is then the target. An absent label (empty, ``NA``, null) is NaN.

    Args:
        source: What :func:`~torch_geometric_crystal.datasets.open_source.open_source` opens, or gave.
        target: Name, or names, of the targets. Default: those of the source.
        level: ``"crystal"``, or ``"atom"`` for targets that are lists with a value for each atom.
        classes: Names of the classes in the order of their numbers, as a trained model has them; a label that is not
            among them makes its structure unusable. Empty to take those that the source has; None for numbers.

    Raises:
        ValueError: if there is no target, several of which one is to be classes, no second class, or a class that is a
            fraction.
    """

    def __init__(
        self,
        source: str | Path | Sequence[Any] | Source,
        target: str | Sequence[str] | None = None,
        level: str = "crystal",
        classes: Sequence[str] | None = None,
    ):
        check_choice("level", level, LEVELS)
        self.source = open_level(source, target, level)
        super().__init__(self.source.name)
        self.level = level
        self._entries = list(self.source)
        names = self.source.target_names
        check_argument(len(names) > 0, "target", f"a column of {self.name}", "none")
        if classes is not None:
            check_argument(len(names) == 1, "target", "one column of classes", list(names))
            classes = tuple(classes) or self._find_classes()
            check_argument(len(classes) > 1, "target", f"two classes at least in {names[0]!r}", list(classes))
        self.classes = classes

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.source.target_names

    def fingerprint(self) -> str:
        """Hash of the source, the level and the classes."""
        return hash_text("labels", self.source.fingerprint(), self.level, repr(self.classes))

    def __iter__(self) -> Iterator[Entry]:
        numbers = None if self.classes is None else {name: number for number, name in enumerate(self.classes)}
        for entry in self._entries:
            yield self._read(entry, numbers) if entry.labels else entry

    def _read(self, entry: Entry, numbers: Mapping[str, int] | None) -> Entry:
        try:
            if self.level == "crystal":
                targets: Any = tuple(_number(label, numbers) for label in entry.labels)
            else:
                targets = _rows(entry.labels, numbers)
        except ValueError as error:
            fault = f"target {', '.join(map(repr, self.target_names))}: {error}"
            remedy = _ATOM_REMEDY if self.level == "atom" else "Correct the label, or leave it empty if it is unknown"
            return dataclasses.replace(entry, targets=None, fault=(fault, remedy))
        return dataclasses.replace(entry, targets=targets, fault=None)

    def _find_classes(self) -> tuple[str, ...]:
        """The classes that occur, in order."""
        labels = [label for entry in self._entries for label in entry.labels]
        try:
            if self.level == "atom":
                labels = [value for label in labels if not is_absent(label) for value in _values(label)]
            found = {class_name(label) for label in labels}
        except ValueError as error:
            raise ValueError(f"target {self.target_names[0]!r}: {error}") from error
        return ordered_classes(found - {""})


class UnlabelledSource(Source):
    """The crystals of a source without their targets, also those whose targets cannot be read.

    Args:
        source: What :func:`~torch_geometric_crystal.datasets.open_source.open_source` gave.
    """

    def __init__(self, source: Source):
        super().__init__(source.name)
        self.source = source

    @property
    def target_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def fingerprint(self) -> str:
        """Hash of the source."""
        return hash_text("unlabelled", self.source.fingerprint())

    def __iter__(self) -> Iterator[Entry]:
        return (dataclasses.replace(entry, targets=None, labels=(), fault=None) for entry in self.source)


class AtomRecordsSource(JarvisSource):
    """Records in JARVIS's JSON layout whose targets are lists with a value for each atom, in the order of the atoms.

    Such a list stands in the record under the target's name; in a pymatgen dictionary it may also be a property of each
    site.
    """

    @property
    def target_names(self) -> tuple[str, ...]:
        """The properties chosen as targets."""
        if self.target is not None:
            return self.target
        return ("target",) if any("target" in record for record in self._read()[:1]) else ()

    def __iter__(self) -> Iterator[Entry]:
        names, found = self.target_names, dict[str, None]()
        entries = []
        for index, record in enumerate(self._read()):
            structure_id = next((str(record[key]) for key in ID_KEYS if key in record), str(index))
            structure = next((record[key] for key in STRUCTURE_KEYS if key in record), record)
            if not isinstance(structure, Mapping):
                entries.append(faulty_entry(structure_id, "its structure is not a dictionary", "Correct the record"))
                continue
            values = _site_properties(structure) | {key: v for key, v in record.items() if isinstance(v, list)}
            found |= dict.fromkeys(values)
            labels = [values.get(name) for name in names]
            entries.append(labelled_entry(structure_id, labels, names, crystal_from_dict, structure))
        check_names(names, list(found), f"{self.path} as a list")
        yield from entries


def class_name(label: Any) -> str:
    """A label as a class's name: whole numbers without a point, texts without spaces around; empty where absent.

    Raises:
        ValueError: if it is a number but not a whole one.
    """
    if is_absent(label):
        return ""
    if isinstance(label, bool | np.bool_):
        return str(bool(label))
    try:
        number = float(label)
    except (TypeError, ValueError):
        if isinstance(label, str):
            return label.strip()
        raise ValueError(f"{label!r} is neither a number nor a text") from None
    if math.isnan(number):
        return ""
    if not number.is_integer():
        raise ValueError(
            f"classes are texts or whole numbers, received {label!r}. Number the classes, or train a regression"
        )
    return str(int(number))


def ordered_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of the classes' numbers: by size if all are whole numbers, else as texts."""
    names = set(names)
    try:
        return tuple(sorted(names, key=int))
    except ValueError:
        return tuple(sorted(names))


def open_level(source: Any, target: str | Sequence[str] | None = None, level: str = "crystal") -> Source:
    """As :func:`open_source`, with records of JARVIS's layout read for targets of that level."""
    opened = source if isinstance(source, Source) else open_source(source, target)
    if level == "atom" and isinstance(opened, JarvisSource) and not isinstance(opened, AtomRecordsSource):
        return AtomRecordsSource(opened.path, opened.target)
    return opened


def _number(label: Any, numbers: Mapping[str, int] | None) -> float:
    if numbers is None:
        return parse_target(label)
    name = class_name(label)
    if name and name not in numbers:
        raise ValueError(f"{name!r} is none of the classes {', '.join(numbers)}")
    return float(numbers[name]) if name else math.nan


def _rows(labels: Sequence[Any], numbers: Mapping[str, int] | None) -> np.ndarray:
    """Targets of the atoms, (N, T); an absent list is unknown for every atom."""
    columns = [[] if is_absent(label) else [_number(value, numbers) for value in _values(label)] for label in labels]
    lengths = {len(column) for column in columns if column}
    if len(lengths) != 1:
        raise ValueError(f"its lists have {sorted(lengths)} values" if lengths else "it has no value for any atom")
    missing = [math.nan] * lengths.pop()
    return np.array([column or missing for column in columns], dtype=np.float64).T


def _values(label: Any) -> Sequence[Any]:
    """The values of the atoms: of a list, an array or a text that is a JSON list."""
    if isinstance(label, str) and label.lstrip().startswith("["):
        try:
            label = json.loads(label)
        except json.JSONDecodeError as error:
            raise ValueError(f"{label!r} is not a JSON list ({error})") from error
    if isinstance(label, np.ndarray):
        label = label.tolist()
    if not isinstance(label, list | tuple):
        raise ValueError(f"{label!r} is not a list with a value for each atom")
    if any(isinstance(value, list | tuple) for value in label):
        raise ValueError("it has several values an atom; the models predict scalars")
    return label


def _site_properties(structure: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Properties of the sites of a pymatgen dictionary, None where a site lacks one."""
    sites = structure.get("sites")
    if not isinstance(sites, list) or not all(isinstance(site, Mapping) for site in sites):
        return {}
    properties = [site.get("properties") or {} for site in sites]
    names = dict.fromkeys(key for values in properties for key in values)
    return {name: [values.get(name) for values in properties] for name in names}
