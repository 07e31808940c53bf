"""One fold of a task: graphs, training, prediction, record."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal import __version__
from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import ModelCard, build_model, build_transform, load_model
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.evaluation import errors_of, write_evaluation
from torch_geometric_crystal.benchmark.prediction import Predictions, predict
from torch_geometric_crystal.benchmark.recording import write_json
from torch_geometric_crystal.benchmark.run import RunResult, complete_config, continues, train_and_evaluate
from torch_geometric_crystal.benchmark.sources import PARTS, CrystalParts
from torch_geometric_crystal.benchmark.tasks.record import FOLD_FILE, FoldRecord, write_record
from torch_geometric_crystal.benchmark.tasks.scoring import score_fold
from torch_geometric_crystal.benchmark.tasks.task import Task, folder_name, validation_rule
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets import CrystalDataset, cached_graph_store

CLASSES = ("False", "True")
"""Names of the classes 0 and 1 of a classification; the probability of the last one is recorded."""

ON_DISK_FROM = 20_000
"""Crystals from which on a task's graphs are read from the disk: those of 100,000 for Crystalformer take 20 GB."""


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave.

    Args:
        record: predictions, scores and settings, as written to ``fold.json``.
        run: the training run, whose ``model`` has the weights that predicted; None for a baseline.
    """

    record: FoldRecord
    run: RunResult | None


def run_fold(
    task: Task,
    fold: int,
    config: RunConfig,
    output: str | Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> FoldResult | None:
    """Train on one fold, predict its test part, and write the record.

    Model selection uses the validation part alone, and there is none where it is empty (``val_fraction`` 0); the test
    targets are read after the prediction, for the scores.

    Args:
        task: from :func:`~torch_geometric_crystal.benchmark.tasks.load_task`.
        fold: number of the fold, from 0.
        config: model (or the name of a baseline), recipe and seed; ``data`` and ``targets`` are set from the task.
        output: folder for the run's files and ``fold.json``.
        callbacks: told about progress.
        resume: continue from the folder's last.ckpt.

    Returns:
        Record and run; None if training was interrupted.

    Raises:
        ValueError: for a fold that is not there, an unknown model, or a checkpoint to start from of another one.
        CheckpointError: if the checkpoint to start or to resume from cannot be used.
        ArithmeticError: if the model predicts something that is not a number.
    """
    from torch_geometric_crystal.benchmark.baselines import BASELINES, run_baseline_fold

    if config.model in BASELINES:
        return FoldResult(run_baseline_fold(task, fold, config, output, callbacks), None)
    output = Path(output)
    start = config.init_from if continues(output, resume) else starting_point(config, task, fold)
    complete = complete_config(dataclasses.replace(config, init_from=start), output, resume)
    crystals = fold_crystals(task, fold, complete, callbacks)
    hidden = dataclasses.replace(crystals, parts=crystals.parts | {"test": []})
    complete = dataclasses.replace(complete, data=task.name, task=task.kind)
    run = train_and_evaluate(complete, hidden, output, callbacks, resume)
    if run.model is None:
        return None
    for callback in callbacks:
        callback.on_message("predicting the test part")
    settings = (config.recipe.batch_size, config.recipe.batch_by, config.device)
    predictions = predict(run.model, crystals.parts["test"], *settings)
    progress = run.fit.progress
    effort = {
        "ended": run.fit.reason,
        "epochs": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "weights": run.metrics["parameters"],
    }
    record = record_of(task, fold, config, predictions.prediction[:, -1].double().numpy(), effort, run)
    _record_test(task, fold, run, predictions, output)
    write_record(record, output)
    return FoldResult(record, run)


def starting_point(config: RunConfig, task: Task, fold: int) -> str:
    """Return the checkpoint, or run's folder, that a fold starts from; empty for none, and for a baseline.

    Where ``init_from`` is the ``output`` of an earlier :func:`~torch_geometric_crystal.benchmark.run_benchmark`, it is
    the folder that the same model, task and fold have there: the weights have not seen the fold's test part.

    Raises:
        ValueError: if the fold has no checkpoint there, or the weights were ever trained on another fold of the task,
            or on a set of its name that was cut otherwise.
        CheckpointError: if the checkpoint cannot be used.
    """
    from torch_geometric_crystal.benchmark.baselines import BASELINES

    if not config.init_from or config.model in BASELINES:
        return ""
    start = config.init_from
    models = Path(start) / config.model
    if models.is_dir():
        start = str(models / folder_name(task.name) / f"fold_{fold}")
        expected = f"a checkpoint, or a benchmark's folder with a trained fold {fold} of {task.name} by {config.model}"
        trained = all((Path(start) / name).is_file() for name in ("last.ckpt", FOLD_FILE))
        check_argument(trained, "init_from", expected, config.init_from)
    card: ModelCard = load_model(start).card  # type: ignore[assignment]
    expected = f"weights that have not seen the test part of fold {fold} of {task.name}"
    folder = Path(start) if Path(start).is_dir() else Path(start).parent
    told = card.trainings or not (folder / FOLD_FILE).is_file()
    check_argument(
        bool(told), "init_from", expected, f"{start}, of an earlier version, which does not say: train it anew"
    )
    for training in card.trainings:
        data, of_fold = training["data"], training["fold"]
        other_fold = data == task.name and of_fold not in (None, fold)
        all_data = of_fold is None and _base_name(data) == _base_name(task.name)
        seen = f"fold {of_fold}" if other_fold else data
        check_argument(not (other_fold or all_data), "init_from", expected, f"{start}, trained on {seen}")
    return start


def _base_name(data: str) -> str:
    """Name of a data set without a target, endings and Matbench's prefix: that of the file that the task came from."""
    return data.partition(":")[0].partition(".")[0].removeprefix("matbench_")


def _trainings_before(model: nn.Module, task: Task) -> list[dict[str, Any]]:
    """Settings of the trainings on a task before the last one of a model, in order."""
    card: ModelCard = model.card  # type: ignore[assignment]
    before = itertools.takewhile(lambda training: training["data"] == task.name, card.trainings[-2::-1])
    return [training["settings"] for training in before][::-1]


def fold_crystals(task: Task, fold: int, config: RunConfig, callbacks: Sequence[Callback] = ()) -> CrystalParts:
    """Return the crystals of one fold with the model's graphs; those of the test part have no targets.

    The graphs of the whole task are made once and cached; the folds share them. From `ON_DISK_FROM` crystals on they
    stay on the disk.

    Args:
        task: what to load.
        fold: number of the fold, from 0.
        config: model, its options and those of its graph; seed and share of the validation part.
        callbacks: told about progress.

    Raises:
        ValueError: for a fold that is not there.
    """
    split = task.split(fold, config.seed, config.val_fraction)
    for callback in callbacks:
        callback.on_message(f"opening the graphs of {task.name}")
    scout = build_model(config.model, config.model_options)
    transform = build_transform(scout, config.model, config.neighborhood)
    on_disk = len(task.ids) >= ON_DISK_FROM
    dataset: Any = (
        cached_graph_store(task.source, transform, on_error="skip")
        if on_disk
        else CrystalDataset(task.source, pre_transform=transform, pre_filter=has_target, on_error="skip")
    )
    place = {structure_id: k for k, structure_id in enumerate(dataset.structure_ids)}
    missing = [name for name in task.ids if name not in place]
    if missing:
        why = next((text for name, text in dataset.errors if name == missing[0]), "get the data again")
        raise ValueError(f"{task.source!r} has no usable structure {missing[0]!r}: {why}")
    chosen = {part: [place[task.ids[k]] for k in getattr(split, part)] for part in PARTS}
    parts: dict[str, Any]
    if on_disk:
        parts = {part: dataset.index_select(indices) for part, indices in chosen.items()}
        parts["test"].transform = _without_target
    else:
        parts = {part: [dataset[index] for index in indices] for part, indices in chosen.items()}
        parts["test"] = [_without_target(crystal) for crystal in parts["test"]]
    classes = {} if task.kind == "regression" else {"classes": CLASSES}
    return CrystalParts(parts, (task.target,), (task.unit,), **classes, fold=fold)  # type: ignore[arg-type]


def has_target(data: Data) -> bool:
    """Whether the target of a crystal is known."""
    return not bool(data.y.isnan().any())


def _without_target(crystal: Data) -> Data:
    del crystal.y
    return crystal


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the settings of a fold that can change its result, for ``RunConfig.from_dict``: of a baseline the seed."""
    from torch_geometric_crystal.benchmark.baselines import BASELINES

    if config.model in BASELINES:
        return {"model": config.model, "seed": config.seed}
    return config.to_record()


def record_of(
    task: Task,
    fold: int,
    config: RunConfig,
    values: np.ndarray,
    effort: dict[str, Any],
    run: RunResult | None = None,
) -> FoldRecord:
    """Score the predictions of a fold's test part, those of an official task by ``MatbenchTask.record``.

    Args:
        task: what was predicted.
        fold: number of the fold.
        config: the settings.
        values: predictions of the test part, in order; probabilities in a classification.
        effort: what the training took.
        run: the training run; None for a baseline.

    Shapes:
        - values: (m,).

    Raises:
        ArithmeticError: if a prediction is not a finite number.
    """
    parameters: dict[str, Any] = {"settings": settings_of(config), "torch_geometric_crystal": __version__}
    if run is not None:
        parameters |= {
            "epochs": run.fit.progress.epoch,
            "weights": run.metrics["reported_weights"],
            "validation": validation_rule(task, config.seed, config.val_fraction),
        }
        if run.model is not None and (before := _trainings_before(run.model, task)):
            parameters["started_from"] = before
    return score_fold(task, fold, config.model, values, parameters, effort)


def _record_test(task: Task, fold: int, run: RunResult, predictions: Predictions, output: Path) -> None:
    """Write the test part's predictions, picture and errors beside the run's other files."""
    truth = torch.from_numpy(task.values[list(task.fold(fold).test)]).unsqueeze(1)
    scored = dataclasses.replace(predictions, target=truth)
    card = run.model.card  # type: ignore[union-attr]
    title = f"{run.metrics['model']} on {task.name}, fold {fold}, test part"
    write_evaluation(scored, card, output, title)  # type: ignore[arg-type]
    run.metrics["test"][run.metrics["reported_weights"]] = errors_of(scored, run.model)  # type: ignore[arg-type]
    run.metrics["crystals"]["test"] = len(truth)
    write_json(output / "metrics.json", run.metrics)
