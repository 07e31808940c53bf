"""Published errors: the leaderboard of Matbench v0.1, and those on the published splits of JARVIS-DFT and MEGNet's set.

``leaderboard.csv`` beside this file holds, for each structure task, the entries of the benchmark's own per-task pages
(https://matbench.materialsproject.org) as they stood on :data:`LEADERBOARD_DATE`: mean and standard deviation over the
five folds of the mean absolute error, for matbench_mp_is_metal of the ROC-AUC. ``published_splits.csv`` holds mean
absolute errors on the test parts of JARVIS-DFT and MEGNet's set, read in :data:`SPLIT_SOURCES`.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

LEADERBOARD = Path(__file__).parent / "leaderboard.csv"
LEADERBOARD_DATE = "November 2026"
"""When the entries were copied."""
PUBLISHED_SPLITS = Path(__file__).parent / "published_splits.csv"
SPLIT_SOURCES = (
    "github.com: omron-sinicx/crystalformer",
    "omron-sinicx/crystalframer",
    "YKQ98/Matformer",
    "YKQ98/ComFormer",
    "imatge-upc/CartNet",
)
"""Where the tables of errors on the published splits stand: in READMEs and posters of authors of these models."""


@dataclass(frozen=True)
class LeaderboardEntry:
    """One published line: mean and standard deviation of a metric over the five folds.

    Where there is one split alone, the mean is the error on it, and the standard deviation NaN.
    """

    task: str
    algorithm: str
    metric: str
    mean: float
    std: float


def leaderboard(task: str) -> list[LeaderboardEntry]:
    """Return the published entries of a task, best first; none for a name that is not among them.

    Args:
        task: an official Matbench task, or ``jarvis_<target>`` or ``megnet_<target>``.
    """
    entries = [
        LeaderboardEntry(task, row["algorithm"], row["metric"], float(row["mean"]), float(row.get("std") or math.nan))
        for path in (LEADERBOARD, PUBLISHED_SPLITS)
        for row in _rows(path)
        if row["task"] == task
    ]
    return sorted(entries, key=lambda entry: -entry.mean if is_better_high(entry.metric) else entry.mean)


def source_of(task: str) -> str:
    """Say where the published entries of a task are from."""
    if task.startswith("matbench_"):
        return f"Matbench v0.1 leaderboard, {LEADERBOARD_DATE}, mean and standard deviation over five folds"
    return f"errors on the same split in the tables of {', '.join(SPLIT_SOURCES)}"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_better_high(metric: str) -> bool:
    """Whether more of a metric is better: it is for the ROC-AUC, and is not for errors."""
    return metric == "rocauc"
