"""Models times tasks times folds: each in a folder of its own, continued where it was left, several at a time."""

from collections.abc import Sequence
from pathlib import Path

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.run import continues
from torch_geometric_crystal.benchmark.tasks.fold import starting_point
from torch_geometric_crystal.benchmark.tasks.folder_settings import keep_settings
from torch_geometric_crystal.benchmark.tasks.job import FoldJob, Loader, Reporter, run_job
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, read_record
from torch_geometric_crystal.benchmark.tasks.task import Task, folder_name
from torch_geometric_crystal.benchmark.tasks.workers import run_in_processes
from torch_geometric_crystal.checks import check_argument, check_choice


def run_benchmark(
    loaders: Sequence[Loader],
    configs: Sequence[RunConfig],
    output: str | Path,
    folds: Sequence[int] = (),
    jobs: int = 1,
    reporter: Reporter | None = None,
) -> tuple[list[FoldRecord], bool]:
    """Run models on folds of tasks, each in ``<output>/<model>/<task>/fold_<k>``.

    A fold that has its record is not run again; one that was interrupted or killed continues from its last.ckpt. The
    settings of each model and task are kept in ``settings.yaml``, and folds of other settings are not mixed with them.

    Where a configuration's ``init_from`` is the ``output`` of an earlier benchmark, each fold starts from the weights
    that the same model has of the same task and fold there, so that none of them has seen the fold's test part.

    Args:
        loaders: functions that open the tasks; they must be picklable if `jobs` is above 1.
        configs: one for each model or baseline.
        output: folder for everything.
        folds: numbers of the folds; all of each task if none.
        jobs: folds at a time, each in a process of its own, with its share of the CPU's threads and of the GPUs.
        reporter: makes the callbacks of a fold from its label; must be picklable if `jobs` is above 1.

    Returns:
        The records of the folds asked for, and whether all of them are there; they are not after an interruption.

    Raises:
        ValueError: for an unknown model or fold, if `output` holds runs with other settings, or if a fold to start from
            is not there.
    """
    check_argument(jobs >= 1, "jobs", "at least 1", jobs)
    check_argument(min(len(loaders), len(configs)) >= 1, "task, model", "at least one of each", "none")
    output = Path(output)
    for config in configs:
        check_model(config)
    waiting: list[FoldJob] = []
    asked: list[Path] = []
    for loader in loaders:
        task = loader()
        chosen = list(dict.fromkeys(folds)) or list(range(len(task.splits)))
        for fold in chosen:
            task.fold(fold)
        for config in configs:
            folder = output / config.model / folder_name(task.name)
            keep_settings(task, config, folder)
            for fold in chosen:
                job = FoldJob(loader, fold, config, folder / f"fold_{fold}", reporter)
                shared = f"runs in folders of their own, not two in {folder}: give each another output"
                check_argument(job.folder not in asked, "task, model", shared, f"{task.name}, {config.model} twice")
                asked.append(job.folder)
                if read_record(job.folder) is None:
                    if not continues(job.folder, resume=True):
                        starting_point(config, task, fold)
                    waiting.append(job)
    complete = _run_here(waiting, loader, task) if jobs == 1 else run_in_processes(waiting, jobs)
    records = [record for folder in asked if (record := read_record(folder)) is not None]
    return records, complete


def check_model(config: RunConfig) -> None:
    """Raise ``ValueError`` unless the configured model, with its options and its graph's, or the baseline is known."""
    from torch_geometric_crystal.benchmark.baselines import BASELINES
    from torch_geometric_crystal.benchmark.checkpoint import build_model, build_transform
    from torch_geometric_crystal.nn.models import MODELS

    check_choice("model", config.model, [*sorted(MODELS), *BASELINES])
    if config.model in MODELS:
        build_transform(build_model(config.model, config.model_options), config.model, config.neighborhood)


def _run_here(jobs: Sequence[FoldJob], loader: Loader, task: Task) -> bool:
    """Run folds one after the other; `task` is what `loader` has opened already."""
    for job in jobs:
        if job.loader is not loader:
            loader, task = job.loader, job.loader()
        if not run_job(job, task):
            return False
    return True
