"""One fold as a job: everything that a process needs to run it or to continue it."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.tasks.fold import run_fold
from torch_geometric_crystal.benchmark.tasks.folder_settings import LOCK_FILE, check_settings
from torch_geometric_crystal.benchmark.tasks.record import read_record
from torch_geometric_crystal.benchmark.tasks.task import Task
from torch_geometric_crystal.datasets.atomic_write import TEMPORARY_SUFFIX
from torch_geometric_crystal.datasets.file_lock import holding_lock

LOCK_SECONDS = 30.0
"""How long a fold waits for another process that holds its folder; one that was killed lets go at once."""

Reporter = Callable[[str], Sequence[Callback]]
Loader = Callable[[], Task]


@dataclass(frozen=True)
class FoldJob:
    """One fold to run: everything that another process needs.

    Args:
        loader: opens the task.
        fold: number of the fold.
        config: model, recipe and seed.
        folder: the fold's folder.
        reporter: makes the callbacks for a label; None for none.
    """

    loader: Loader
    fold: int
    config: RunConfig
    folder: Path
    reporter: Reporter | None

    @property
    def label(self) -> str:
        """A short name for progress lines."""
        return f"{self.config.model}, {self.folder.parent.name}, fold {self.fold}"


def run_job(job: FoldJob, task: Task, device: str | None = None) -> bool:
    """Run one fold, or continue it; nothing is done if it has its record.

    Args:
        job: what to run.
        task: the opened task.
        device: stands for the configured device ``auto``, where a process has been given one.

    Returns:
        Whether it has its record; it has none after an interruption.

    Raises:
        ValueError: if another process is at work in the fold's folder, or began there with other settings.
    """
    config = job.config
    if device is not None and config.device == "auto":
        config = dataclasses.replace(config, device=device)
    busy = f"output: another process is at work in {job.folder}; wait for it, or choose another"
    with holding_lock(job.folder / LOCK_FILE, LOCK_SECONDS, busy) as is_locked:
        check_settings(task, config, job.folder.parent)  # again: hours may have gone by, in which another began
        if read_record(job.folder) is not None:
            return True
        leftovers = job.folder.glob(f".*{TEMPORARY_SUFFIX}")  # of a process that was killed while it wrote
        for leftover in leftovers if is_locked else ():
            leftover.unlink(missing_ok=True)
        callbacks = job.reporter(job.label) if job.reporter is not None else ()
        return run_fold(task, job.fold, config, job.folder, callbacks, resume=True) is not None
