"""Benchmark tasks: official Matbench tasks, its five-fold protocol on other data, and how they are run and recorded."""

from pathlib import Path

from torch_geometric_crystal.benchmark.published import LeaderboardEntry, leaderboard
from torch_geometric_crystal.benchmark.tasks.benchmark import run_benchmark
from torch_geometric_crystal.benchmark.tasks.five_fold import load_five_fold_task
from torch_geometric_crystal.benchmark.tasks.fold import FoldResult, fold_crystals, run_fold
from torch_geometric_crystal.benchmark.tasks.official import PREFIX, load_official_task, official_tasks
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, read_records
from torch_geometric_crystal.benchmark.tasks.task import Split, Task, inner_split

__all__ = [
    "FoldRecord",
    "FoldResult",
    "LeaderboardEntry",
    "Split",
    "Task",
    "fold_crystals",
    "inner_split",
    "leaderboard",
    "load_task",
    "official_tasks",
    "read_records",
    "run_benchmark",
    "run_fold",
]


def load_task(name: str = "matbench_phonons", data_dir: str | Path | None = None, download: bool = False) -> Task:
    """Return a task: an official one of Matbench, or Matbench's five-fold protocol on other data under their own name.

    Args:
        name: one of Matbench's nine structure tasks (``matbench_phonons`` is bundled), a bundled set (``flla_2015``) or
            a compact store in `data_dir` (``mp_gap`` for ``matbench_mp_gap.npz``). Of the last two, ``name:target``
            chooses another target than the first.
        data_dir: folder with official files (``matbench_dielectric.json.gz``) or compact stores.
        download: whether matminer may download an official file that is not in that folder.

    Raises:
        MissingDependencyError: without matbench and matminer.
        ValueError: for an unknown task or target, or a file that is not the official one.
        FileNotFoundError: if the data are not there.
    """
    if name.startswith(PREFIX):
        return load_official_task(name, data_dir, download)
    return load_five_fold_task(name, data_dir)
