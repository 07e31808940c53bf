"""The training loop: one recipe, any model, resumable to the bit.

Devices, precision and clipping are Lightning Fabric's; the loop is written out here because a run must continue from
a checkpoint that holds tensors and plain values alone, from the middle of an epoch too.
"""

import contextlib
import copy
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.benchmark.allocator import keep_freed_memory
from torch_geometric_crystal.benchmark.averaging import WeightAverage
from torch_geometric_crystal.benchmark.batch_statistics import batch_statistics, moving_batch_norms
from torch_geometric_crystal.benchmark.batching import crystal_loader
from torch_geometric_crystal.benchmark.callbacks import Callback, StopRequest
from torch_geometric_crystal.benchmark.checkpoint import CheckpointError, ModelCard, read_checkpoint, save_checkpoint
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.fabric import make_fabric
from torch_geometric_crystal.benchmark.gradients import Gradients
from torch_geometric_crystal.benchmark.objectives import make_objective
from torch_geometric_crystal.benchmark.optimizer import freeze_parameters, hold_frozen, make_optimizer
from torch_geometric_crystal.benchmark.processes import Group, Place, Workers, quiet_distribution
from torch_geometric_crystal.benchmark.progress import Progress, random_state, restore_random_state, seed_everything
from torch_geometric_crystal.benchmark.recording import write_history
from torch_geometric_crystal.benchmark.validation import Validation
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.atomic_write import remove_leftovers
from torch_geometric_crystal.datasets.graph_store import OnDiskCrystals
from torch_geometric_crystal.nn.readout import TargetNormalization

CHECKPOINT_SECONDS = 600.0
"""A checkpoint is written at each epoch's end, and within an epoch when the last one is this old."""
ACTIONS = ("", "save", "time", "interrupted")
"""After a batch: go on, write a checkpoint, or write it and stop for one of two reasons."""


class TrainingDivergedError(ArithmeticError):
    """The training loss is no longer a finite number."""


@dataclass(frozen=True)
class FitResult:
    """How a training run ended.

    Args:
        reason: ``"finished"`` (all epochs), ``"early"`` (early stopping), ``"time"`` (max_time) or ``"interrupted"``.
        progress: where it stands.
        averaged_epochs: epochs in the running mean of the weights; 0 if there is none.
    """

    reason: str
    progress: Progress
    averaged_epochs: int


def fit(
    model: nn.Module,
    train: Sequence[Data],
    validation: Sequence[Data],
    config: RunConfig,
    card: ModelCard,
    output: str | Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    keep_normalization: bool = False,
) -> FitResult:
    """Train a model and write ``last.ckpt``, ``best.ckpt`` and ``history.csv`` into a folder.

    Targets are standardised by the training crystals' statistics (unless the recipe says otherwise), which are stored
    with the weights. With ``resume`` the run continues from ``last.ckpt``: on one CPU to the same bits as a run that
    was never interrupted, whether it was stopped between epochs or within one. SIGINT and SIGTERM write the checkpoint
    and return.

    With several devices each batch is shared among as many processes (DDP of Lightning Fabric), so that the run is that
    of one process but for rounding. This process starts the others, writes all files and hears the signals. The others
    import the script that runs, whose work must then stand under ``if __name__ == "__main__":``. Where a batch has
    fewer crystals than there are processes, the others repeat one of it without its targets. A model with a batch norm
    that is not this library's normalises by the statistics of each process's share.

    Args:
        model: takes a batch, returns (B, T) in physical units (of a classification (B, K) logits, and rows of
            atoms where it predicts these), and has ``normalization``.
        train: crystals with their graphs and targets y (1, T), of atoms (N, T).
        validation: likewise; may be empty, then no best epoch is chosen.
        config: recipe, seed, devices, precision, time limit, and what to freeze.
        card: how to use the weights, stored in the checkpoints.
        output: the run's folder.
        callbacks: told about progress.
        resume: continue from ``last.ckpt`` where there is one; otherwise start anew and remove an older run's files.
        keep_normalization: whether the model's normalisation of the targets stays as it is.

    Returns:
        How the run ended. The model has the weights of the last step, not their mean.

    Raises:
        ValueError: without crystals to train on, or for early stopping without crystals that validate.
        CheckpointError: if the checkpoint to resume from is damaged or of another run.
        TrainingDivergedError: if the loss becomes infinite or NaN.
        WorkerError: if one of several processes fails.
    """
    check_argument(len(train) > 0, "train", "at least one crystal", "none")
    patience = config.recipe.patience
    check_argument(not patience or len(validation) > 0, "patience", "0 where no crystals validate", patience)
    resume = resume and (Path(output) / "last.ckpt").is_file()
    job = (model, train, validation, config, card, Path(output), resume, keep_normalization)
    if config.devices == 1:
        return _Fit(None, *job, callbacks).run()
    with Workers(config.devices, _help_fit, job) as place, quiet_distribution():
        return _Fit(place, *job, callbacks).run()


def _help_fit(place: Place, *job: Any) -> None:
    _Fit(place, *job).run()


class _Fit:
    """State of one call of :func:`fit`."""

    def __init__(
        self,
        place: Place | None,
        model: nn.Module,
        train: Sequence[Data],
        validation: Sequence[Data],
        config: RunConfig,
        card: ModelCard,
        output: Path,
        resume: bool,
        keep_normalization: bool,
        callbacks: Sequence[Callback] = (),
    ):
        self.config, self.recipe, self.card, self.callbacks = config, config.recipe, card, callbacks
        self.resume = resume
        self.last, self.best, self.history = output / "last.ckpt", output / "best.ckpt", output / "history.csv"
        self.fabric = make_fabric(config.device, config.precision, place)
        if self.fabric.device.type == "cpu":
            keep_freed_memory()
        self.group = Group(place, self.fabric.device)
        self.objective = make_objective(card)
        labels = train.with_fields("y", "structure_id") if isinstance(train, OnDiskCrystals) else train
        if not keep_normalization:
            normalization: TargetNormalization = model.normalization  # type: ignore[assignment]
            target = torch.cat([crystal.y for crystal in labels])
            self.objective.fit_normalization(normalization, target, self.recipe.standardize)
        freeze_parameters(model, config.freeze)
        if config.precision == "64":
            model.double()
            train, validation = (_in_double(crystals) for crystals in (train, validation))
        self.model = model
        self.module, self.optimizer = self.fabric.setup(model, make_optimizer(model, self.recipe))
        self.gradients = Gradients(model, self.module, self.fabric, config, self.objective)
        by = (self.recipe.batch_size, self.recipe.batch_by)
        share = (self.group.rank, self.group.size)
        workers = config.loader_workers
        self.loader = crystal_loader(train, *by, shuffle=True, seed=config.seed, share=share, workers=workers)
        batches: Any = []
        if isinstance(validation, OnDiskCrystals) and len(validation) > 0:
            batches = crystal_loader(validation, *by, workers=workers)
        elif len(validation) > 0:
            batches = list(crystal_loader(validation, *by))  # joined once; a store's crystals may not fit into memory
        self.validation = Validation(batches, self.gradients, self.group)
        self.data_hash = _data_hash(labels)
        self.progress = Progress()
        self.average = WeightAverage()
        self.epoch_steps = 1
        self.saved_at = time.perf_counter()

    def run(self) -> FitResult:
        for path in (self.last, self.best, self.history) if self.group.is_first else ():
            remove_leftovers(path)
            if not self.resume:
                path.unlink(missing_ok=True)  # an older run's, which a later resume must not take for this one
        # Here, since packages that setting up loads may draw random numbers; dropout differs between processes.
        seed_everything(self.config.seed + self.group.rank)
        if self.resume:
            self._restore()
        self._tell("on_start", self.recipe.epochs, self.progress.epoch, self.config.max_time)
        with StopRequest() if self.group.is_first else contextlib.nullcontext(StopRequest()) as stop:
            reason = self._reason_to_stop()
            is_longer = self.average.count > self.progress.epoch - self._averaging_start() and not self._timely()
            if is_longer and not reason:
                self.average.reset()  # the run is now longer than it was: its last epochs are others
            while not reason:
                reason = self._run_epoch(stop) or self._reason_to_stop()
        if reason != "interrupted" and self.average.count and not self.average.is_settled:
            self._settle_average()
        self._tell("on_end", reason)
        return FitResult(reason, self.progress, self.average.count)

    def _reason_to_stop(self) -> str:
        progress, recipe = self.progress, self.recipe
        if progress.epoch >= recipe.epochs:
            return "finished"
        if recipe.patience and self.validation.batches and progress.epoch - progress.best_epoch >= recipe.patience:
            return "early"
        last_epoch = progress.history[-1]["seconds"] if progress.history and progress.batch == 0 else 0.0
        return "time" if self.group.decide(self._out_of_time(last_epoch)) else ""

    def _out_of_time(self, ahead: float = 0.0) -> bool:
        limit = self.config.max_time
        return limit is not None and self.progress.seconds + ahead >= 60.0 * limit

    def _run_epoch(self, stop: StopRequest) -> str:
        progress = self.progress
        sampler = self.loader.batch_sampler
        sampler.set_epoch(progress.epoch, 0)  # type: ignore[union-attr]
        num_batches = self.epoch_steps = len(sampler)  # type: ignore[arg-type]
        sampler.set_epoch(progress.epoch, progress.batch)  # type: ignore[union-attr]
        self._tell("on_epoch_start", progress.epoch + 1, num_batches, progress.batch)
        self.module.train()
        hold_frozen(self.model)
        losses: list[Tensor] = []
        clock = time.perf_counter()
        for batch in self.loader:
            losses.append(self._step(batch))
            now = time.perf_counter()
            progress.seconds, clock = progress.seconds + now - clock, now
            self._tell("on_batch_end", progress.epoch + 1, progress.seconds)
            action = ACTIONS[self.group.decide(ACTIONS.index(self._next_action(stop, now)))]
            if action:
                self._collect(losses)
                self._save()
            if action in ("interrupted", "time"):
                return action
        self._collect(losses)
        self._finish_epoch(clock)
        return "interrupted" if self.group.decide(stop.requested) else ""

    def _next_action(self, stop: StopRequest, now: float) -> str:
        """What to do after a batch, by the clock and the signals of this process."""
        if stop.requested:
            return "interrupted"
        if self._out_of_time() and self.progress.batch != self.epoch_steps:
            return "time"
        return "save" if now - self.saved_at > CHECKPOINT_SECONDS else ""

    def _step(self, batch: Batch) -> Tensor:
        progress = self.progress
        settings = self.recipe.optimizer_settings(progress.step, progress.epoch, self.epoch_steps)
        for group in self.optimizer.param_groups:
            group.update(settings)
        known = int(self.group.sum((~batch.y.isnan()).sum()))
        progress.weights.append(known)
        batch = batch.to(self.fabric.device, non_blocking=True)
        loss = self.gradients(batch, None if self.group.size == 1 else max(known, 1) / self.group.size)
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm, foreach=True)
        self.optimizer.step()
        progress.step += 1
        progress.batch += 1
        return loss

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _collect(self, losses: list[Tensor]) -> None:
        """Move the batches' losses from the device into the progress: one wait for many batches."""
        if losses:
            self.progress.losses += (self.group.sum(torch.stack(losses)) / self.group.size).tolist()
            losses.clear()
        loss = self.progress.train_loss()
        if not abs(loss) < float("inf"):
            raise TrainingDivergedError(
                f"the training loss is {loss} in epoch {self.progress.epoch + 1}: try a lower learning rate "
                f"(it was {self._lr():.2g}). The checkpoint before it is whole: {self.last}"
            )

    def _finish_epoch(self, clock: float) -> None:
        progress = self.progress
        before = sum(row["seconds"] for row in progress.history)
        validation, error = self.validation()
        progress.seconds += time.perf_counter() - clock
        is_best = progress.finish_epoch(self._lr(), progress.seconds - before, validation, error)
        if self._averaging():
            self.average.update(self.model.state_dict())
        else:
            self.average.reset()
        if is_best and self.group.is_first:
            save_checkpoint(self.best, self.card, self.model.state_dict())
        self._save()
        self._tell("on_epoch_end", progress.history[-1], is_best)

    def _settle_average(self) -> None:
        """Give the mean weights batch statistics of their own, by a pass over the training set."""
        clock, random = time.perf_counter(), random_state(self.fabric.device)
        self.module.train()
        hold_frozen(self.model)
        if moving_batch_norms(self.model):
            self.loader.batch_sampler.set_epoch(self.progress.epoch, 0)  # type: ignore[union-attr]
            batches = (batch.to(self.fabric.device, non_blocking=True) for batch in self.loader)
            weights = self.average.averaged(self.model.state_dict())
            self.average.settle(batch_statistics(self.model, weights, batches, self.gradients.predict))
            restore_random_state(random, self.fabric.device)
            self.progress.seconds += time.perf_counter() - clock
            self._save()

    def _averaging(self) -> bool:
        return self.recipe.averaging_epochs > 0 and (self.progress.epoch > self._averaging_start() or self._timely())

    def _averaging_start(self) -> int:
        return max(self.recipe.epochs - self.recipe.averaging_epochs, 0)

    def _timely(self) -> bool:
        limit = self.config.max_time
        share = self._averaging_start() / self.recipe.epochs
        return limit is not None and self.progress.seconds >= 60.0 * limit * share

    def _save(self) -> None:
        self.saved_at = time.perf_counter()
        if not self.group.is_first:
            return
        averaged = self.average.averaged(self.model.state_dict()) if self.average.count else None
        training = {
            "optimizer": self.optimizer.state_dict(),
            "progress": self.progress.to_dict(),
            "average": self.average.state_dict(),
            "random": random_state(self.fabric.device),
            "recipe": self.recipe.to_dict(),
            "seed": self.config.seed,
            "freeze": sorted(self.config.freeze),
            "data_hash": self.data_hash,
        }
        save_checkpoint(self.last, self.card, self.model.state_dict(), averaged, training)
        write_history(self.history, self.progress.history)

    def _restore(self) -> None:
        content = read_checkpoint(self.last)
        state = content["training"]
        if state is None or "estimator" in state:
            raise CheckpointError(self.last, "has no training state", "Resume from a last.ckpt of tgcrystal train.")
        card: ModelCard = content["card"]
        self.card = dataclasses.replace(self.card, trainings=(*card.trainings[:-1], *self.card.trainings))
        # A model goes on in a later version, whose transform may have more arguments; a split shows in the data's hash.
        card = dataclasses.replace(
            card,
            library_version=self.card.library_version,
            split=self.card.split,
            trainings=self.card.trainings,
            neighborhood={**self.card.neighborhood, **card.neighborhood},
        )
        if (card, state["seed"], state["data_hash"]) != (self.card, self.config.seed, self.data_hash):
            fault = "belongs to a run with another model, seed or training set"
            raise CheckpointError(self.last, fault, "Resume with that run's config.yaml, or choose another --output.")
        kept = {
            name: (state["recipe"].get(name), getattr(self.recipe, name)) for name in ("optimizer", "decay_vectors")
        }
        frozen = sorted(self.config.freeze)
        kept = {
            "optimizer": (state["recipe"].get("optimizer"), self.recipe.optimizer),
            "decay_vectors": (state["recipe"].get("decay_vectors"), self.recipe.decay_vectors),
            "freeze": (state.get("freeze", frozen), frozen),
        }
        for name, (before, now) in kept.items():
            if before != now:
                fault = f"was trained with {name} {before!r}, not {now!r}"
                raise CheckpointError(self.last, fault, f"Resume with that {name}, or choose another --output.")
        with _as_damage(self.last):
            self.model.load_state_dict(content["state_dict"])
            settings = [
                {k: v for k, v in group.items() if k not in ("params", "lr")} for group in self.optimizer.param_groups
            ]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, own in zip(self.optimizer.param_groups, settings, strict=True):
                group.update(own)  # those of this recipe, which may be others
            self.progress = Progress.from_dict(state["progress"])
            self.average.load_state_dict(state["average"])
            if self.group.is_first:
                restore_random_state(state["random"], self.fabric.device)
        if self.group.is_first:
            write_history(self.history, self.progress.history)

    def _tell(self, event: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*args)


@contextlib.contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(path, f"its training state is incomplete ({error})", "Train again.") from error


def _in_double(crystals: Sequence[Data]) -> Sequence[Data]:
    if not isinstance(crystals, OnDiskCrystals):
        return [_to_double(crystal) for crystal in crystals]
    view = copy.copy(crystals)
    view.transform = _to_double
    return view


def _to_double(crystal: Data) -> Data:
    return crystal.clone().apply(lambda value: value.double() if value.is_floating_point() else value)


def _data_hash(crystals: Sequence[Data]) -> str:
    """SHA-256 of the training set's names (where there are any) and targets, in order."""
    digest = hashlib.sha256()
    for index, crystal in enumerate(crystals):
        digest.update(str(crystal.get("structure_id", index)).encode())
        digest.update(crystal.y.double().numpy().tobytes())
    return digest.hexdigest()
