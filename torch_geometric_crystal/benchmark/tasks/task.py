"""A benchmark task: crystals with one target, how they are cut, and in words what that is."""

import dataclasses
import re
from dataclasses import dataclass

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.source import Entry, Source

VALIDATION_SHARE = 0.1
METRICS = {"regression": "mae", "classification": "rocauc"}
"""What the leaderboard compares: mean absolute error, or area under the receiver operating characteristic."""


@dataclass(frozen=True)
class Split:
    """Positions of one fold's crystals in the task.

    Args:
        train: positions to learn from; with ``val`` empty, :func:`inner_split` takes the validation part from here.
        test: positions to be scored on.
        val: validation positions, where the protocol fixes them.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    val: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task: n crystals, their target and their folds.

    Args:
        name: names the task in tables and folders. Only the official data of Matbench has the name of a Matbench task.
        statement: which data and which protocol this is, for every output.
        official: whether these are Matbench's own files, folds and scores, as a leaderboard submission needs.
        published_as: name under which published errors on the same data and split are listed; empty for none.
        source: the structures, in order; ``positions`` says which of them belong to the task.
        positions: position in the source of each crystal.
        ids: names of the crystals.
        values: the target, float64; 1 and 0 in a classification.
        target: the target's name.
        unit: its unit; empty where there is none.
        kind: ``"regression"`` or ``"classification"`` (of two classes).
        splits: the folds.

    Shapes:
        - positions, ids, values: n.
    """

    name: str
    statement: str
    official: bool
    published_as: str
    source: Source
    positions: tuple[int, ...]
    ids: tuple[str, ...]
    values: np.ndarray
    target: str
    unit: str
    kind: str
    splits: tuple[Split, ...]

    @property
    def metric(self) -> str:
        """Name of the score that the leaderboard compares, ``"mae"`` or ``"rocauc"``."""
        return METRICS[self.kind]

    def fold(self, fold: int) -> Split:
        """Return one fold as the protocol cuts it.

        Raises:
            ValueError: for a fold that is not there.
        """
        check_argument(fold in range(len(self.splits)), "fold", f"0 to {len(self.splits) - 1}", fold)
        return self.splits[fold]

    def split(self, fold: int, seed: int = 0, share: float = VALIDATION_SHARE) -> Split:
        """Return one fold with a validation part: the protocol's own, else a random share of the training part.

        Args:
            fold: its number, from 0.
            seed: seed of :func:`inner_split`.
            share: share of the training part that validates; with 0 all of it is trained on, and none validates.

        Raises:
            ValueError: for a fold that is not there.
        """
        split = self.fold(fold)
        if split.val:
            return split
        train, val = inner_split(len(split.train), seed, share)
        return dataclasses.replace(
            split, train=tuple(split.train[k] for k in train), val=tuple(split.train[k] for k in val)
        )

    def entries(self) -> list[Entry]:
        """The crystals of the task as entries of the source, in order; reads the source."""
        entries = list(self.source)
        return [entries[k] for k in self.positions]


def inner_split(number: int, seed: int = 0, share: float = VALIDATION_SHARE) -> tuple[list[int], list[int]]:
    """Cut a fold's training part, 0 .. number - 1, into training and validation: a random share validates.

    The validation part is the first ``round(share * number)``, at least one, of numpy's
    ``default_rng(seed).permutation(number)``.

    Returns:
        Sorted positions of the training and of the validation part; with a share of 0 the latter is empty.
    """
    order = np.random.default_rng(seed).permutation(number)
    count = max(1, round(share * number)) if share > 0 else 0
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


def validation_rule(task: Task, seed: int, share: float) -> str:
    """Say in words which crystals validate."""
    if task.splits[0].val:
        return "the published validation part"
    if share == 0:
        return "none: all of the training part is trained on, and the last epochs predict"
    return f"{share:g} of the training part, drawn by numpy default_rng({seed})"


def folder_name(task_name: str) -> str:
    """Return a task's name as a folder's: letters of any language, digits, ``_``, ``-`` and dots."""
    return re.sub(r"[^\w.-]+", "-", task_name).strip("-.")
