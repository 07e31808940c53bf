"""Matbench's own package: imported where it is used, and kept from logging."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from torch_geometric_crystal.checks import MissingDependencyError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence matbench's log lines and third-party warnings."""
    logging.getLogger("matbench").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("matbench").setLevel(logging.ERROR)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    try:
        with quiet():
            yield
    except ImportError as error:
        raise MissingDependencyError("matbench (with pip install --no-deps matbench)", "matbench") from error


def task_metadata() -> dict[str, Any]:
    """Return Matbench's metadata of its structure tasks by name: target, unit, task_type, n_samples, url, hash, ...

    Raises:
        MissingDependencyError: without matbench and matminer.
    """
    with _importing():
        from matbench.metadata import mbv01_metadata
    return {name: task for name, task in mbv01_metadata.items() if task.input_type == "structure"}


def official_folds(name: str) -> list[dict[str, list[str]]]:
    """Return the names of the crystals to train and to test on, in each of a task's official folds."""
    with _importing():
        from matbench.metadata import mbv01_validation
    folds = mbv01_validation.splits[name]
    return [{"train": list(folds[key].train), "test": list(folds[key].test)} for key in folds]


def new_benchmark(names: list[str]) -> Any:
    """Return an empty ``MatbenchBenchmark`` of some tasks, without their data."""
    with _importing():
        from matbench.bench import MatbenchBenchmark
    with quiet():
        return MatbenchBenchmark(autoload=False, subset=names)


def read_benchmark(path: str) -> Any:
    """Return what ``MatbenchBenchmark.from_file`` reads from a plain JSON file."""
    with _importing():
        from matbench.bench import MatbenchBenchmark
    with quiet():
        return MatbenchBenchmark.from_file(path)


def record_officially(
    name: str, fold: int, ids: Sequence[str], values: np.ndarray, prediction: np.ndarray, parameters: dict[str, Any]
) -> dict[str, float]:
    """Record the predictions of one fold with ``MatbenchTask.record`` and return the scores that it computed.

    Args:
        name: an official task.
        fold: number of the fold.
        ids: Matbench's names of all crystals of the task.
        values: their targets in the official file; 1 and 0 in a classification.
        prediction: of the fold's test part, in its order; probabilities in a classification.
        parameters: the settings that gave them, in plain values.

    Shapes:
        - ids, values: n, prediction: (m,).
    """
    task = new_benchmark([name]).tasks_map[name]
    give_targets(task, ids, values)
    with quiet():
        task.record(fold, prediction.tolist(), params=parameters)
    return {key: float(value) for key, value in task.results[task.folds_map[fold]].scores.items()}


def give_targets(task: Any, ids: Sequence[str], values: np.ndarray) -> None:
    """Give a ``MatbenchTask`` the true values that ``record`` compares with; it needs no structures for that.

    Args:
        task: to be changed.
        ids: Matbench's names of all crystals.
        values: their targets from the official file; 1 and 0 in a classification.

    Shapes:
        - ids, values: n.
    """
    import pandas

    truth: Any = values > 0.5 if task.metadata.task_type == "classification" else values
    task.df = pandas.DataFrame({task.metadata.input_type: None, task.metadata.target: truth}, index=list(ids))


def recorded_benchmark(tasks: dict[str, dict[str, dict[str, Any]]]) -> Any:
    """Return a ``MatbenchBenchmark`` with the given results, which matbench validates.

    Args:
        tasks: by the task's name, then by the fold's key (``fold_0``): data, parameters and scores.

    Raises:
        ValueError: if a fold or a crystal is missing.
    """
    benchmark = new_benchmark(list(tasks))
    with _importing():
        from matbench.constants import CLF_METRICS, REG_METRICS
        from matbench.task import MatbenchTask
    for name, folds in tasks.items():
        plain = benchmark.tasks_map[name].as_dict()
        results = {
            key: {
                "data": dict(fold["data"]),
                "parameters": dict(fold["parameters"]),
                "scores": {k: v for k, v in fold["scores"].items() if k in (*REG_METRICS, *CLF_METRICS)},
                "uncertainty": None,
            }
            for key, fold in folds.items()
        }
        with quiet():
            benchmark.tasks_map[name] = MatbenchTask.from_dict(plain | {"results": results})
    return benchmark


def score_predictions(kind: str, truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Score predictions with matbench's own function: mae, rmse, mape, max_error of a regression.

    Of a classification: accuracy, balanced_accuracy, f1, rocauc, and besides ``rocauc_probabilities``. Matbench 0.6
    turns probabilities into labels (at 0.5) before its ``rocauc``, which is what the leaderboard shows; the last one is
    the area under the curve of the probabilities themselves.

    Args:
        kind: ``"regression"`` or ``"classification"``.
        truth: true values; 1 and 0 in a classification.
        prediction: predicted values; probabilities in a classification.

    Shapes:
        - truth, prediction: (m,).
    """
    with _importing():
        from matbench.data_ops import score_array
        from sklearn.metrics import roc_auc_score
    is_classification = kind == "classification"
    true: Any = truth > 0.5 if is_classification else truth
    with quiet():
        scores = {name: float(value) for name, value in score_array(true.tolist(), prediction.tolist(), kind).items()}
        if is_classification:
            scores["rocauc_probabilities"] = float(roc_auc_score(true, prediction))
    return scores
