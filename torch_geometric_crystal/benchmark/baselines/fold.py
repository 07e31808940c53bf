"""One fold of a task by a baseline."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torch_geometric_crystal.benchmark.baselines.composition import predict_from_composition
from torch_geometric_crystal.benchmark.baselines.features import composition_features
from torch_geometric_crystal.benchmark.baselines.mean import predict_mean
from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.tasks.fold import record_of
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord
from torch_geometric_crystal.benchmark.tasks.scoring import write_fold
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
    write_fold(task, record, output)
    return record
