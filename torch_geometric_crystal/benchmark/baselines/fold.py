"""One fold of a task by a baseline."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from torch_geometric_crystal.benchmark.baselines.composition import predict_from_composition
from torch_geometric_crystal.benchmark.baselines.features import composition_features
from torch_geometric_crystal.benchmark.baselines.mean import predict_mean
from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.plots import plot_parity
from torch_geometric_crystal.benchmark.recording import write_predictions
from torch_geometric_crystal.benchmark.tasks.fold import record_of
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, write_record
from torch_geometric_crystal.benchmark.tasks.task import Task
from torch_geometric_crystal.datasets.fingerprint import hash_text

BASELINES = {
    "mean": "predicts the mean of the training part",
    "composition": "gradient boosting on features of the composition",
}
"""Names that stand where a model's name may stand, and what they do."""


def run_baseline_fold(
    task: Task, fold: int, config: RunConfig, output: str | Path, callbacks: Sequence[Callback] = ()
) -> FoldRecord:
    """Learn one fold with a baseline, predict its test part, and write the record.

    A baseline chooses nothing on a validation part, so it learns from all of the training part.

    Args:
        task: what to learn.
        fold: number of the fold, from 0.
        config: ``model`` names the baseline; of the other settings the seed counts alone.
        output: folder for predictions.csv, parity.png and ``fold.json``.
        callbacks: told about progress.

    Raises:
        ValueError: for a fold that is not there.
    """
    start = time.perf_counter()
    split = task.fold(fold)
    train, test = list(split.train), list(split.test)
    if config.model == "mean":
        values = predict_mean(task.values[train], len(test))
    else:
        for callback in callbacks:
            callback.on_message(f"composition features of {task.name}")
        key = hash_text(task.source.fingerprint(), repr(task.positions))
        features = composition_features(task.entries(), task.source.name, key)
        for callback in callbacks:
            callback.on_message("gradient boosting")
        values = predict_from_composition(features[train], task.values[train], features[test], task.kind, config.seed)
    effort = {"ended": "finished", "epochs": None, "seconds": round(time.perf_counter() - start, 1), "weights": None}
    record = record_of(task, fold, config, np.asarray(values, dtype=np.float64), effort)
    _write_files(task, test, record, Path(output))
    write_record(record, output)
    return record


def _write_files(task: Task, test: list[int], record: FoldRecord, output: Path) -> None:
    truth = torch.from_numpy(task.values[test]).unsqueeze(1)
    predicted = torch.tensor(list(record.predictions.values()), dtype=torch.float64).unsqueeze(1)
    write_predictions(output / "predictions.csv", list(record.predictions), truth, predicted, [task.target])
    title = f"{record.model} on {task.name}, fold {record.fold}, test part"
    plot_parity(predicted, truth, output / "parity.png", [task.target], [task.unit], title)
