"""What the command line shows: consoles, the training bar, tables of errors."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

LOG_SECONDS = 10.0
"""Without a terminal, epochs are reported as lines at least this far apart."""
BATCH_LOG_SECONDS = 60.0
"""Likewise, a long epoch reports where it is."""
SHOWN_ERRORS = {"val_mae_": "MAE", "val_cross_entropy_": "cross-entropy", "val_accuracy_": "accuracy"}
"""How the columns of a history begin that the bar shows, and what they are called there."""
COLUMNS = {
    "regression": {"MAE": ("mae", ".4g"), "RMSE": ("rmse", ".4g"), "R²": ("r2", ".3f")},
    "classification": {
        "accuracy": ("accuracy", ".3f"),
        "balanced": ("balanced_accuracy", ".3f"),
        "F1": ("f1", ".3f"),
        "ROC-AUC": ("rocauc", ".3f"),
        "cross-entropy": ("cross_entropy", ".4g"),
    },
}
"""Columns of a table of errors: heading, metric and format."""


def console() -> Console:
    """The console for results: standard output."""
    return Console(highlight=False)


def error_console() -> Console:
    """The console for errors and warnings: standard error."""
    return Console(stderr=True, highlight=False)


class TrainingBar:
    """Shows a training run: a bar on a terminal, else a line every few seconds.

    It is a :class:`torch_geometric_crystal.benchmark.callbacks.Callback` in all but name, so that this module does not
    import torch.

    Args:
        name: what is trained, shown before each line.
        units: unit of each target, by name.
        lines: whether to show lines on a terminal, too, as several processes must that share it.
    """

    def __init__(self, name: str, units: Mapping[str, str] | None = None, lines: bool = False):
        self.name = name
        self.lines = lines
        self.units = dict(units or {})
        self.console = console()
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.epochs = 0
        self.shown_at = self.epoch_began_at = 0.0
        self.unshown: dict[str, float] = {}
        self.limit: float | None = None

    def on_message(self, text: str) -> None:
        """Show what takes a while."""
        self.console.print(f"{self.name}: {text} ...", style="dim")

    def on_start(self, epochs: int, epoch: int, max_time: float | None) -> None:
        """Open the bar."""
        self.epochs, self.limit = epochs, max_time
        if self.lines or not self.console.is_terminal:
            return
        columns = (
            TextColumn(self.name),
            BarColumn(),
            TextColumn("epoch"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console)
        self.task = self.progress.add_task(self.name, total=epochs, completed=epoch, state="")
        self.progress.start()

    def on_epoch_start(self, epoch: int, num_batches: int, done: int) -> None:
        """Remember how many batches the epoch has."""
        self.num_batches = max(num_batches, 1)
        self.batch = done
        self.epoch_began_at = time.perf_counter()

    def on_batch_end(self, epoch: int, seconds: float) -> None:
        """Move the bar by a batch; with a time limit it shows the share of the time if that is larger."""
        self.batch += 1
        if self.progress is not None:
            done = epoch - 1 + self.batch / self.num_batches
            if self.limit is not None:
                done = max(done, self.epochs * seconds / (60.0 * self.limit))
            self.progress.update(self.task, completed=round(min(done, self.epochs), 2))
        elif time.perf_counter() - max(self.shown_at, self.epoch_began_at) >= BATCH_LOG_SECONDS:
            self._line(f"epoch {epoch}/{self.epochs}, batch {self.batch} of {self.num_batches}")

    def on_epoch_end(self, row: dict[str, float], is_best: bool) -> None:
        """Show the epoch's loss and errors."""
        state = self._state(row)
        if self.progress is not None:
            self.progress.update(self.task, state=state)
        elif time.perf_counter() - self.shown_at >= LOG_SECONDS:
            self._epoch_line(row)
        else:
            self.unshown = row

    def on_end(self, reason: str) -> None:
        """Close the bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
        elif self.unshown:
            self._epoch_line(self.unshown)

    def _epoch_line(self, row: dict[str, float]) -> None:
        self._line(f"epoch {row['epoch']:g}/{self.epochs} {self._state(row)}")
        self.unshown = {}

    def _line(self, text: str) -> None:
        self.console.print(f"{self.name}: {text}", soft_wrap=True)
        self.shown_at = time.perf_counter()

    def _state(self, row: Mapping[str, float]) -> str:
        parts = [f"loss {row['train_loss']:.4f}"]
        for prefix, name in SHOWN_ERRORS.items():
            errors = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
            for target, value in errors.items():
                of = f" {target}" if len(errors) > 1 else ""
                parts.append(f"val {name}{of} {value:.4g} {self.units.get(target, '')}".rstrip())
        return ", ".join(parts)


def error_table(title: str, errors: Mapping[str, Mapping[str, Mapping[str, Any]]], level: str = "crystal") -> Table:
    """A table of errors.

    Args:
        title: heading.
        errors: by name of the predictor, then by target: mae, rmse, r2, count, and unit where known; of a
            classification accuracy, balanced_accuracy, f1, rocauc, cross_entropy and count.
        level: what is counted: ``"crystal"`` or ``"atom"``.
    """
    rows = [(name, target, values) for name, targets in errors.items() for target, values in targets.items()]
    columns = COLUMNS["regression" if all("mae" in values for _, _, values in rows) else "classification"]
    table = Table(title=title, title_justify="left")
    for column in ("", "target", *columns, f"{level}s"):
        table.add_column(column, justify="left" if column in ("", "target") else "right", overflow="fold")
    for name, target, values in rows:
        cells = [format(values[key], shape) for key, shape in columns.values()]
        cells[0] = f"{cells[0]} {values.get('unit', '')}".rstrip()
        table.add_row(name, target, *cells, str(values["count"]))
    return table


def warn(text: str) -> None:
    """Show a warning line on standard error."""
    error_console().print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def warn_of_files(failed: Sequence[tuple[object, str]], bounds: Sequence[float], tolerance: float | None) -> None:
    """Warn of files that could not be predicted, and of truncation beyond the tolerance.

    Args:
        failed: path and error of each file that could not be used.
        bounds: certified bound of each of the others; NaN where there is none.
        tolerance: of the graphs; None where they have none.
    """
    if failed:
        path, error = failed[0]
        warn(f"{len(failed)} failed, see the column error; the first, {path}: {error}")
    above = [] if tolerance is None else [bound for bound in bounds if bound > tolerance]
    if above:
        warn(
            f"truncation_bound is above the graphs' tolerance {tolerance:g} for {len(above)} files, up to "
            f"{max(above):.1e}: the logits spread further than allowed for"
        )


def show_truncation(truncation: Mapping[str, Any], count: int) -> None:
    """Show the certified bound on what the graphs' cutoff dropped, and warn where it is above their tolerance.

    Args:
        truncation: max, median, tolerance, above, as ``benchmark.evaluation.errors_of`` gives them.
        count: number of crystals.
    """
    bounds = f"at most {truncation['max']:.2e} of any softmax row (median {truncation['median']:.2e})"
    console().print(f"certified truncation bound: {bounds}", soft_wrap=True)
    if truncation["above"]:
        warn(
            f"the bound is above the graphs' tolerance {truncation['tolerance']:g} for {truncation['above']} of "
            f"{count} crystals: the model's logits spread further than the graphs allow for. Compare with a smaller tol"
        )


def show_files(folder: object, names: Sequence[str]) -> None:
    """Show which files were written."""
    console().print(f"written to {folder}: {', '.join(names)}", style="dim", markup=False, soft_wrap=True)
