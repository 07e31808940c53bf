"""Matbench: official tasks and folds through the `matbench` package, and the published leaderboard.

``leaderboard.csv`` beside this file holds, for each structure task of Matbench v0.1, the entries of the benchmark's own
leaderboard pages (https://matbench.materialsproject.org, per-task pages; copied in November 2026): mean and standard
deviation over the five folds of the mean absolute error, for mp_is_metal of the ROC-AUC.
"""

import contextlib
import csv
import dataclasses
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import build_model
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.evaluation import errors_of, mean_predictor, targets_of, write_evaluation
from torch_geometric_crystal.benchmark.prediction import Predictions, predict
from torch_geometric_crystal.benchmark.recording import write_json
from torch_geometric_crystal.benchmark.run import RunResult, train_and_evaluate
from torch_geometric_crystal.benchmark.sources import CrystalParts
from torch_geometric_crystal.checks import MissingDependencyError, check_argument

LEADERBOARD = Path(__file__).parent / "leaderboard.csv"
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class LeaderboardEntry:
    """One line of the published leaderboard: mean and standard deviation of a metric over the five folds."""

    task: str
    algorithm: str
    metric: str
    mean: float
    std: float


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave.

    Args:
        task: the task's name.
        fold: its number.
        scores: errors on the official test part, as matbench computed them: mae, rmse, mape, max_error.
        mean_predictor_mae: error there of predicting the training part's mean.
        unit: the target's unit.
        run: the training run; its ``model`` has the weights that predicted.
        test_ids: names of the test part's crystals, in order.
    """

    task: str
    fold: int
    scores: dict[str, float]
    mean_predictor_mae: float
    unit: str
    run: RunResult
    test_ids: list[str]


def leaderboard(task: str) -> list[LeaderboardEntry]:
    """Return the published entries of a task, best first; none for a task that is not among them."""
    with LEADERBOARD.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    entries = [
        LeaderboardEntry(task, row["algorithm"], row["metric"], float(row["mean"]), float(row["std"])) for row in rows
    ]
    return sorted(entries, key=lambda entry: -entry.mean if entry.metric == "rocauc" else entry.mean)


def load_task(name: str = "matbench_phonons", data_folder: str | Path | None = None) -> Any:
    """Return matbench's own ``MatbenchTask``, its data read from a file on this machine and checked by SHA-256.

    Args:
        name: a task of Matbench v0.1.
        data_folder: folder with ``<name>.json.gz``. Default: ``MATMINER_DATA``, if that is set and has the file, else
            the package, which has matbench_phonons.

    Raises:
        MissingDependencyError: without matbench and matminer.
        ValueError: for an unknown task, or a file that is not the official one.
        FileNotFoundError: if the file is not there; nothing is downloaded.
    """
    try:
        with _quiet():
            from matbench.task import MatbenchTask
            from matminer.datasets.dataset_retrieval import get_available_datasets, get_dataset_attribute
    except ImportError as error:
        raise MissingDependencyError("matbench (with pip install --no-deps matbench)", "matbench") from error

    known = [task for task in get_available_datasets(print_format=None) if task.startswith("matbench_")]
    check_argument(name in known, "task", f"one of {', '.join(known)}", name)
    path = _task_file(name, data_folder)
    if not path.is_file():
        url = get_dataset_attribute(name, "url")
        raise FileNotFoundError(f"{path} is not there: get it from {url} and name its folder as data folder")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != get_dataset_attribute(name, "hash"):
        raise ValueError(f"{path} is not the official file of {name}: its SHA-256 is {found}. Get it again")
    with _matminer_data(path.parent), _quiet():
        return MatbenchTask(name, autoload=True)


def _task_file(name: str, data_folder: str | Path | None) -> Path:
    from torch_geometric_crystal.datasets.bundled import FILES

    given = os.environ.get("MATMINER_DATA") if data_folder is None else data_folder
    path = Path(given or FILES).expanduser() / f"{name}.json.gz"
    return FILES / path.name if data_folder is None and not path.is_file() else path


@contextlib.contextmanager
def _matminer_data(folder: Path) -> Iterator[None]:
    """Point matminer, which reads the folder from the environment, at `folder` for a while."""
    before = os.environ.get("MATMINER_DATA")
    os.environ["MATMINER_DATA"] = str(folder)
    try:
        yield
    finally:
        del os.environ["MATMINER_DATA"]
        if before is not None:
            os.environ["MATMINER_DATA"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence matbench's log lines and third-party warnings."""
    logging.getLogger("matbench").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("matbench").setLevel(logging.ERROR)


def inner_split(number: int, seed: int = 0, share: float = VALIDATION_SHARE) -> tuple[list[int], list[int]]:
    """Cut a fold's training part, 0 .. number - 1, into training and validation: a random tenth validates.

    The validation part is the first ``round(share * number)`` of numpy's ``default_rng(seed).permutation(number)``.

    Returns:
        Sorted positions of the training and of the validation part.
    """
    order = np.random.default_rng(seed).permutation(number)
    count = round(share * number)
    return sorted(order[count:].tolist()), sorted(order[:count].tolist())


def fold_crystals(task: Any, fold: int, transform: Any, seed: int = 0) -> CrystalParts:
    """Return the crystals of one official fold with their graphs; those of the test part have no targets.

    Args:
        task: from :func:`load_task`.
        fold: number of the fold, from 0.
        transform: ``model.neighborhood()``.
        seed: seed of :func:`inner_split`.

    Raises:
        ValueError: for a fold that is not there, or a task that is not a regression on structures.
    """
    check_argument(fold in task.folds, "fold", f"0 to {len(task.folds) - 1}", fold)
    kind = (task.metadata.input_type, task.metadata.task_type)
    check_argument(kind == ("structure", "regression"), "task", "a regression on structures", kind)
    inputs, outputs = task.get_train_and_val_data(fold)
    tests = task.get_test_data(fold, include_target=False)
    train, validation = inner_split(len(inputs), seed)
    parts = {
        "train": _graphs(inputs.iloc[train], transform, outputs.iloc[train]),
        "val": _graphs(inputs.iloc[validation], transform, outputs.iloc[validation]),
        "test": _graphs(tests, transform),
    }
    unit = str(task.metadata.unit or "").replace("cm^-1", "1/cm")
    return CrystalParts(parts, (str(task.metadata.target),), (unit,))


def _graphs(structures: Any, transform: Any, targets: Any = None) -> list[Data]:
    from torch_geometric_crystal.datasets.processing import Recipe, process
    from torch_geometric_crystal.datasets.source import Entry

    values = [None] * len(structures) if targets is None else [(float(value),) for value in targets]
    entries = [
        Entry(str(name), y, _from_structure, structure)
        for name, structure, y in zip(structures.index, structures, values, strict=True)
    ]
    return process(entries, Recipe(transform, None, torch.float32), description="graphs").crystals


def _from_structure(structure: Any, structure_id: str, dtype: torch.dtype) -> Data:
    from torch_geometric_crystal.data import from_structure

    return from_structure(structure, None, structure_id, dtype)


def run_fold(
    task: Any,
    fold: int,
    config: RunConfig,
    output: str | Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> FoldResult | None:
    """Train on one official fold, predict its test part, and record the prediction with ``task.record``.

    Model selection uses the inner validation part alone; the test targets are read after the prediction, for the
    scores, by matbench.

    Args:
        task: from :func:`load_task`; recording a fold that it has already is an error of matbench's, which ignores it.
        fold: number of the fold, from 0.
        config: model, recipe and seed; ``data`` and ``targets`` are set from the task.
        output: folder for the run's files and ``matbench_fold.json``, the record in matbench's own layout.
        callbacks: told about progress.
        resume: continue from the folder's last.ckpt.

    Returns:
        Scores and run; None if training was interrupted.
    """
    output = Path(output)
    for callback in callbacks:
        callback.on_message(f"making the graphs of {task.dataset_name}, fold {fold}")
    scout = build_model(config.model, config.model_options)
    transform = scout.neighborhood(**config.neighborhood)  # type: ignore[operator]
    crystals = fold_crystals(task, fold, transform, config.seed)
    hidden = dataclasses.replace(crystals, parts=crystals.parts | {"test": []})
    config = dataclasses.replace(config, data=task.dataset_name)
    run = train_and_evaluate(config, hidden, output, callbacks, resume)
    if run.model is None:
        return None
    test = crystals.parts["test"]
    settings = (config.recipe.batch_size, config.recipe.batch_by, config.device)
    predictions = predict(run.model, test, *settings)
    values = predictions.prediction[:, 0].double()
    task.record(fold, values.tolist(), params=_parameters(config, run))
    fold_key = task.folds_map[fold]
    write_json(output / "matbench_fold.json", {"task": task.dataset_name, fold_key: dict(task.results[fold_key])})
    truth = torch.tensor(task.df.loc[predictions.ids, task.metadata.target].to_numpy(dtype=float)).unsqueeze(1)
    scored = dataclasses.replace(predictions, target=truth)
    _record_test(run, scored, crystals, output)
    known = targets_of(crystals.parts["train"] + crystals.parts["val"])
    mean = mean_predictor(known, truth, ("y",))["y"]["mae"]
    scores = {name: float(value) for name, value in task.results[fold_key].scores.items()}
    return FoldResult(task.dataset_name, fold, scores, mean, crystals.units[0], run, predictions.ids)


def _record_test(run: RunResult, predictions: Predictions, crystals: CrystalParts, output: Path) -> None:
    """Write the test part's predictions, picture and errors beside the run's other files."""
    card = run.model.card  # type: ignore[union-attr]
    write_evaluation(predictions, card, output, f"{run.metrics['model']} on {run.metrics['data']}, official test part")  # type: ignore[arg-type]
    run.metrics["test"][run.metrics["reported_weights"]] = errors_of(predictions, run.model)  # type: ignore[arg-type]
    run.metrics["crystals"]["test"] = len(crystals.parts["test"])
    write_json(output / "metrics.json", run.metrics)


def _parameters(config: RunConfig, run: RunResult) -> dict[str, Any]:
    """Settings for matbench's record: plain values with text keys."""
    return {
        "model": config.model,
        "seed": config.seed,
        "epochs": run.fit.progress.epoch,
        "seconds": round(run.fit.progress.seconds, 1),
        "weights": run.metrics["reported_weights"],
        "validation": f"{VALIDATION_SHARE:g} of the training part, numpy default_rng({config.seed})",
    }
