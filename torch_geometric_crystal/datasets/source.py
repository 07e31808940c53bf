"""What every reader gives: named crystals with their targets, parsed when asked."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError

MISSING_VALUES = frozenset({"", "na", "nan", "none", "null", "n/a", "-"})
"""Texts, in lower case, that stand for an absent target; "Na", which is sodium, does not."""


@dataclass(frozen=True)
class Entry:
    """A crystal as its source holds it.

    Attributes:
        structure_id: Its name.
        targets: Its target values, NaN where missing: a tuple of T, or, for targets of each atom, an array (N, T); None
            if the source has no targets.
        build: Module-level function ``build(raw, structure_id, dtype) -> Data``.
        raw: What `build` reads: a path, a dictionary, arrays.
        labels: The targets as the source has them: numbers, texts, lists of a value for each atom.
        fault: What is wrong with the targets, and the remedy; None if they can be used.
    """

    structure_id: str
    targets: tuple[float, ...] | np.ndarray | None
    build: Callable[[Any, str, torch.dtype], Data]
    raw: Any
    labels: tuple[Any, ...] = ()
    fault: tuple[str, str] | None = None

    def load(self, dtype: torch.dtype = torch.float32) -> Data:
        """Parse and check the crystal.

        Raises:
            InvalidStructureError: if it cannot be read, is not a valid crystal, or its targets cannot be used.
        """
        if self.fault is not None:
            raise InvalidStructureError(self.structure_id, *self.fault)
        data = self.build(self.raw, self.structure_id, dtype)
        data.structure_id = self.structure_id
        if isinstance(self.targets, np.ndarray):
            if len(self.targets) != data.z.numel():
                fault = f"it has {data.z.numel()} atoms but {len(self.targets)} values a target"
                raise InvalidStructureError(self.structure_id, fault, "Give a value for each atom, null where unknown")
            data.y = torch.from_numpy(self.targets).to(dtype)
        elif self.targets is not None:
            data.y = torch.tensor([self.targets], dtype=dtype)
        return data


class Source(ABC):
    """Crystals of one file, folder or list. Opening one is cheap; iterating reads it.

    Iterating yields an `Entry` per crystal in the source's order, also for those that cannot be used: they raise when
    loaded, so that one bad file does not end the reading of the others.
    """

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    @abstractmethod
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in the order of the columns of `y`. Empty if there are none."""

    @property
    def available_targets(self) -> tuple[str, ...]:
        """What `target` could name: columns, keys or properties that are not structures. Reads the source."""
        return self.target_names

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 that changes with the content and with the options of reading it."""

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]: ...


def is_absent(value: Any) -> bool:
    """Whether a target value is None or one of the texts that stand for an absent one."""
    if not isinstance(value, str):
        return value is None
    text = value.strip()
    return text != "Na" and text.lower() in MISSING_VALUES


def parse_target(value: Any) -> float:
    """A target value as a float: NaN for the usual marks of an absent value, 1 and 0 for booleans.

    Raises:
        ValueError: if `value` is neither a finite number nor a mark of absence.
    """
    if is_absent(value):
        return math.nan
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a number") from None
    if math.isinf(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def labelled_entry(
    structure_id: str,
    values: Sequence[Any],
    target_names: Sequence[str],
    build: Callable[[Any, str, torch.dtype], Data],
    raw: Any,
) -> Entry:
    """An `Entry` whose targets are parsed from `values`; one that raises when loaded if a value is not a number."""
    if not target_names:
        return Entry(structure_id, None, build, raw)
    labels, targets = tuple(values), []
    for name, value in zip(target_names, labels, strict=True):
        try:
            targets.append(parse_target(value))
        except ValueError as error:
            fault = f"target {name!r}: {error}"
            return Entry(structure_id, None, build, raw, labels, (fault, _remedy(value)))
    return Entry(structure_id, tuple(targets), build, raw, labels)


def _remedy(value: Any) -> str:
    if isinstance(value, str):
        return "Give a number, or leave it empty if it is unknown; to learn classes, choose the task classification"
    return "Give a number; to learn a value for each atom, choose the level atom"


def faulty_entry(structure_id: str, fault: str, remedy: str) -> Entry:
    """An `Entry` known to be unusable: it raises when loaded."""
    return Entry(structure_id, None, _refuse, (fault, remedy))


def refuse_repeated_ids(entries: list[Entry]) -> list[Entry]:
    """The first entry of each id stays; later ones become faulty."""
    counts = Counter(entry.structure_id for entry in entries)
    if len(counts) == len(entries):
        return entries
    seen: set[str] = set()
    kept = []
    for entry in entries:
        name = entry.structure_id
        if name in seen:
            entry = faulty_entry(name, f"its id occurs {counts[name]} times", "Give each structure an id of its own")
        seen.add(name)
        kept.append(entry)
    return kept


def as_names(target: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """One name, several, or None (the reader's default), as a tuple or None."""
    if target is None:
        return None
    return (target,) if isinstance(target, str) else tuple(target)


def check_names(asked: Sequence[str], available: Sequence[str], where: str) -> None:
    """Raise unless every asked target is there.

    Raises:
        ValueError: naming the absent target and those that there are.
    """
    for name in asked:
        if name not in available:
            choices = ", ".join(repr(a) for a in available) or "none"
            raise ValueError(f"target: {name!r} is not in {where}; it has {choices}")


def existing_file(path: str | Path) -> Path:
    """`path`, if it is a file.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return path


def read_utf8(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: if it is in another encoding, or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8 (byte {error.start} is {error.object[error.start]:#04x}). Save it as UTF-8; "
            'spreadsheets call that "CSV UTF-8"'
        ) from error


def _refuse(raw: tuple[str, str], structure_id: str, dtype: torch.dtype) -> NoReturn:
    raise InvalidStructureError(structure_id, *raw)
