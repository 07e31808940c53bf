"""One run from configuration to result files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from torch_geometric_crystal import __version__
from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import (
    ModelCard,
    build_model,
    build_transform,
    load_model,
    transform_settings,
    weights_of_run,
)
from torch_geometric_crystal.benchmark.config import RunConfig, write_config
from torch_geometric_crystal.benchmark.evaluation import evaluate, targets_of, write_evaluation
from torch_geometric_crystal.benchmark.fine_tuning import from_checkpoint, take_weights
from torch_geometric_crystal.benchmark.objectives import make_objective
from torch_geometric_crystal.benchmark.optimizer import freeze_parameters
from torch_geometric_crystal.benchmark.plots import plot_learning_curve
from torch_geometric_crystal.benchmark.prediction import refuse_unknown_elements
from torch_geometric_crystal.benchmark.progress import seed_everything
from torch_geometric_crystal.benchmark.recording import write_json
from torch_geometric_crystal.benchmark.sources import CrystalParts, load_parts
from torch_geometric_crystal.benchmark.training import FitResult, fit
from torch_geometric_crystal.checks import check_argument


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Args:
        fit: how training ended.
        model: the model with the reported weights; None if training was interrupted.
        metrics: the content of ``metrics.json``; empty if training was interrupted.
        output: the run's folder.
    """

    fit: FitResult
    model: nn.Module | None
    metrics: dict[str, Any]
    output: Path


def build_run_model(
    config: RunConfig,
    target_names: Sequence[str],
    units: Sequence[str],
    classes: Sequence[str] = (),
    split: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Construct the configured model from its seed; ``model.card`` says how to use it.

    Raises:
        ValueError: if the model's options contradict the task.
    """
    given = config.model_options.get("level", config.level)
    check_argument(given == config.level, "level", "the run's level, not one of model_options", given)
    outputs = len(classes) if config.task == "classification" else len(target_names)
    level = {} if config.level == "crystal" else {"level": config.level}
    seed_everything(config.seed)
    model = build_model(config.model, {**config.model_options, "num_targets": outputs} | level)
    transform = build_transform(model, config.model, config.neighborhood)
    model.card = ModelCard(  # type: ignore[assignment]
        model=config.model,
        model_options=model.config(),  # type: ignore[operator]
        neighborhood={**config.neighborhood, **transform_settings(transform)},
        graph=repr(transform),
        target_names=tuple(target_names),
        units=tuple(units),
        task=config.task,
        level=config.level,
        classes=tuple(classes),
        split=dict(split or {}),
    )
    return model


def run_training(
    config: RunConfig,
    output: str | Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    progress: bool = False,
) -> RunResult:
    """Open the data, train, evaluate, and write everything into a folder.

    The folder gets config.yaml, history.csv, best.ckpt, last.ckpt, predictions.csv and parity.png (of a classification
    confusion.png and roc.png) of the test part, learning_curve.png and metrics.json.

    Args:
        config: what to do.
        output: the folder.
        callbacks: told about progress.
        resume: continue from the folder's last.ckpt.
        progress: whether to show a bar while graphs are made.

    Raises:
        ValueError: for a setting that does not fit, naming it.
        CheckpointError: if the checkpoint to resume from cannot be used.
    """
    config = complete_config(config, output, resume)
    scout = build_model(config.model, config.model_options)
    _tell(callbacks, f"opening {config.data}")
    transform = build_transform(scout, config.model, config.neighborhood)
    fractions = (config.val_fraction, config.test_fraction)
    classes = () if config.task == "classification" else None
    seed = config.seed if config.split_seed is None else config.split_seed
    crystals = load_parts(config.data, config.targets, transform, seed, *fractions, progress, config.level, classes)
    for part in crystals.parts.values():
        refuse_unknown_elements(scout, part)
    return train_and_evaluate(config, crystals, output, callbacks, resume)


def train_and_evaluate(
    config: RunConfig,
    crystals: CrystalParts,
    output: str | Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> RunResult:
    """Train on given parts and evaluate on their test part, as :func:`run_training` does.

    The weights reported are the averaged ones where there are any, else those of the best epoch, else the last; the
    errors of the others stand beside them in metrics.json.
    """
    output = Path(output)
    config = dataclasses.replace(complete_config(config, output, resume), targets=crystals.target_names)
    model = build_run_model(config, crystals.target_names, crystals.units, crystals.classes, crystals.split)
    card: ModelCard = model.card  # type: ignore[assignment]
    transfer = None
    if config.init_from and not continues(output, resume):
        transfer = take_weights(model, config.init_from, card)
        _tell(callbacks, transfer.describe())
    data = config.data if crystals.fold is not None else Path(config.data).name
    training = {"data": data, "fold": crystals.fold, "settings": config.to_record()}
    card = dataclasses.replace(card, trainings=(*(transfer.trainings if transfer else ()), training))
    _check_freezing(model, config, callbacks)
    train, validation = crystals.parts["train"], crystals.parts["val"]
    keep = transfer is not None and transfer.same_targets
    told = [_ConfigWriter(config, output / "config.yaml"), *callbacks]
    result = fit(model, train, validation, config, card, output, told, resume, keep)
    if result.reason == "interrupted":
        return RunResult(result, None, {}, output)

    _tell(callbacks, "evaluating")
    models = _candidates(output)
    metrics: dict[str, Any] = {
        "model": config.model,
        "data": config.data,
        "seed": config.seed,
        "library_version": __version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "task": config.task,
        "level": config.level,
        "baseline": make_objective(card).baseline_name,
        "init_from": config.init_from or None,
        "frozen": sum(not p.requires_grad for p in model.parameters()),
        "crystals": {part: len(crystals.parts[part]) for part in crystals.parts},
        "training": _training_summary(result),
    }
    metrics |= _evaluate_all(models, config, crystals, card, output)
    averaged = metrics["validation"].get("averaged", {}).get("targets", {})
    error = make_objective(card).error
    write_json(output / "metrics.json", metrics)
    if result.progress.history:
        plot_learning_curve(
            result.progress.history,
            output / "learning_curve.png",
            card.target_names,
            card.units,
            f"{config.model} on {config.data}",
            {name: errors[error] for name, errors in averaged.items()},
            error,
        )
    return RunResult(result, models[metrics["reported_weights"]], metrics, output)


class _ConfigWriter(Callback):
    """Writes the settings when an epoch begins: those of a run that is refused, or has ended, stay what they were."""

    def __init__(self, config: RunConfig, path: Path):
        self.config, self.path, self.has_begun = config, path, False

    def on_start(self, epochs: int, epoch: int, max_time: float | None) -> None:
        """Write them where there are none."""
        if not self.path.is_file():
            write_config(self.config, self.path)

    def on_epoch_start(self, epoch: int, num_batches: int, batch: int) -> None:
        """Write them at the first epoch: they are those of the folder from now on."""
        if not self.has_begun:
            write_config(self.config, self.path)
            self.has_begun = True


def continues(output: str | Path, resume: bool) -> bool:
    """Whether a run goes on from the checkpoint in its folder."""
    return resume and (Path(output) / "last.ckpt").is_file()


def complete_config(config: RunConfig, output: str | Path, resume: bool) -> RunConfig:
    """Return the configuration with what the checkpoint to start from says, or that of the run where it continues.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ValueError: if it is of another kind of model.
    """
    return from_checkpoint(config, output if continues(output, resume) else config.init_from)


def _check_freezing(model: nn.Module, config: RunConfig, callbacks: Sequence[Callback]) -> None:
    frozen = freeze_parameters(model, config.freeze)
    if frozen:
        parameters = dict(model.named_parameters())
        weights = sum(parameters[name].numel() for name in frozen)
        total = sum(parameter.numel() for parameter in parameters.values())
        _tell(callbacks, f"frozen: {len(frozen)} of {len(parameters)} tensors, {weights} of {total} weights")


def _evaluate_all(
    models: dict[str, nn.Module], config: RunConfig, crystals: CrystalParts, card: ModelCard, output: Path
) -> dict[str, Any]:
    """Errors of all candidates on validation and test part; files for the first of them."""
    reported = next(iter(models))
    train, validation, test = (crystals.parts[part] for part in ("train", "val", "test"))
    settings = (config.recipe.batch_size, config.recipe.batch_by, config.device)
    metrics: dict[str, Any] = {"reported_weights": reported, "validation": {}, "test": {}}
    for name, candidate in models.items():
        if validation:
            metrics["validation"][name] = evaluate(candidate, validation, *settings)[0]
        if test:
            metrics["test"][name], predictions = evaluate(candidate, test, *settings)
            if name == reported:
                write_evaluation(predictions, card, output, f"{config.model} on {config.data}, test part")
    if test:
        metrics["mean_predictor"] = make_objective(card).baseline(targets_of(train), targets_of(test))
    return metrics


def _candidates(output: Path) -> dict[str, nn.Module]:
    """The models that a run leaves, the one to report first."""
    return {name: load_model(*arguments) for name, arguments in weights_of_run(output).items()}


def _training_summary(result: FitResult) -> dict[str, Any]:
    progress = result.progress
    return {
        "ended": result.reason,
        "epochs": progress.epoch,
        "steps": progress.step,
        "seconds": progress.seconds,
        "best_epoch": progress.best_epoch,
        "averaged_epochs": result.averaged_epochs,
    }


def _tell(callbacks: Sequence[Callback], text: str) -> None:
    for callback in callbacks:
        callback.on_message(text)
