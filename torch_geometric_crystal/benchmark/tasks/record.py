"""What one fold gave, as the file ``fold.json`` that ends it: a fold that has one is never trained again."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_geometric_crystal.benchmark.recording import write_json

FOLD_FILE = "fold.json"


@dataclass(frozen=True)
class FoldRecord:
    """Predictions and scores of one model on one fold.

    Args:
        task: the task's name.
        statement: which data and which protocol that is.
        official: whether it is an official task of Matbench.
        published_as: name under which published errors are listed; empty for none.
        kind: ``"regression"`` or ``"classification"``.
        metric: name of the score to compare.
        target: the target's name.
        unit: its unit.
        model: the model's name.
        fold: number of the fold, from 0.
        num_folds: number of folds of the task.
        predictions: by the crystal's name, in the order of the test part; probabilities in a classification.
        parameters: the settings that gave them, in plain values.
        scores: errors on the test part.
        effort: epochs, seconds, number of weights, and how training ended; what differs from run to run is here alone.
    """

    task: str
    statement: str
    official: bool
    published_as: str
    kind: str
    metric: str
    target: str
    unit: str
    model: str
    fold: int
    num_folds: int
    predictions: Mapping[str, float]
    parameters: Mapping[str, Any]
    scores: Mapping[str, float]
    effort: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The score to compare."""
        return self.scores[self.metric]


def write_record(record: FoldRecord, folder: str | Path) -> None:
    """Write ``fold.json`` into a fold's folder, atomically."""
    write_json(Path(folder) / FOLD_FILE, dataclasses.asdict(record))


def read_record(folder: str | Path) -> FoldRecord | None:
    """Read a fold's ``fold.json``; None if the fold has none yet.

    Raises:
        ValueError: if the file is not one that :func:`write_record` wrote.
    """
    path = Path(folder) / FOLD_FILE
    if not path.is_file():
        return None
    try:
        return FoldRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and the fold is evaluated again") from error


def read_records(output: str | Path) -> list[FoldRecord]:
    """Read all folds below a benchmark's folder, sorted by task, model and fold."""
    found = [read_record(path.parent) for path in Path(output).glob(f"*/*/fold_*/{FOLD_FILE}")]
    records = [record for record in found if record is not None]
    return sorted(records, key=lambda record: (record.task, record.model, record.fold))
