"""Mean and spread over the folds, beside the published errors: a table, a CSV file and pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_geometric_crystal.benchmark.published import LeaderboardEntry, is_better_high, leaderboard, source_of
from torch_geometric_crystal.benchmark.recording import write_table, write_text
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, read_records
from torch_geometric_crystal.benchmark.tasks.task import folder_name

SUMMARY_TABLE, SUMMARY_TEXT = "summary.csv", "summary.md"


@dataclass(frozen=True)
class ModelScore:
    """One model on one task.

    Args:
        model: the model's name.
        scores: score by fold.
        num_folds: number of folds of the task.
        epochs: mean number of epochs; NaN for a baseline.
        minutes: training time of all folds.
    """

    model: str
    scores: dict[int, float]
    num_folds: int
    epochs: float
    minutes: float

    @property
    def mean(self) -> float:
        """Mean over the folds that are there."""
        return float(np.mean(list(self.scores.values())))

    @property
    def std(self) -> float:
        """Standard deviation over them, as Matbench has it (divided by their number); NaN for a single one."""
        return float(np.std(list(self.scores.values()))) if len(self.scores) > 1 else math.nan

    @property
    def how(self) -> str:
        """Which folds, and what they took."""
        folds = sorted(self.scores)
        names = "one split" if self.num_folds == 1 else f"all {self.num_folds} folds"
        if len(folds) < self.num_folds:
            names = ("fold " if len(folds) == 1 else "folds ") + ", ".join(map(str, folds)) + f" of {self.num_folds}"
        if math.isnan(self.epochs):
            return f"{names}, {self.minutes:.1f} min"
        epochs = f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}{' each' if len(folds) > 1 else ''}"
        return f"{names}, {epochs}, {self.minutes:.1f} min"


@dataclass(frozen=True)
class TaskSummary:
    """All models on one task, best first, and what is published.

    Args:
        name: the task's name.
        statement: which data and which protocol that is.
        metric: name of the score.
        target: the target's name.
        unit: its unit.
        models: the models, best first.
        published: published entries on the same data and split, best first.
    """

    name: str
    statement: str
    metric: str
    target: str
    unit: str
    models: list[ModelScore]
    published: list[LeaderboardEntry]

    @property
    def heading(self) -> str:
        """The score's name with its unit."""
        metric = "ROC-AUC" if self.metric == "rocauc" else self.metric.upper()
        return f"{metric} ({self.unit})" if self.unit else metric

    @property
    def published_source(self) -> str:
        """Where the published entries are from."""
        return source_of(self.name)


def summarize(records: Sequence[FoldRecord]) -> list[TaskSummary]:
    """Gather records by task and model; tasks by name, models best first."""
    summaries = []
    for name in sorted({record.task for record in records}):
        of_task = [record for record in records if record.task == name]
        first = of_task[0]
        models = [
            _model_score([r for r in of_task if r.model == model]) for model in sorted({r.model for r in of_task})
        ]
        sign = -1.0 if is_better_high(first.metric) else 1.0
        models.sort(key=lambda score: sign * score.mean)
        published = leaderboard(first.published_as)
        summaries.append(TaskSummary(name, first.statement, first.metric, first.target, first.unit, models, published))
    return summaries


def _model_score(records: Sequence[FoldRecord]) -> ModelScore:
    epochs = [r.effort["epochs"] for r in records if r.effort["epochs"] is not None]
    return ModelScore(
        model=records[0].model,
        scores={r.fold: r.score for r in records},
        num_folds=records[0].num_folds,
        epochs=float(np.mean(epochs)) if epochs else math.nan,
        minutes=sum(r.effort["seconds"] for r in records) / 60.0,
    )


def write_summary(output: str | Path) -> list[TaskSummary]:
    """Gather all folds below a benchmark's folder and write summary.csv, summary.md and pictures.

    The pictures are ``comparison_<task>.png`` in the folder, and ``parity.png`` for each model and regression task in
    its folder, a panel a fold.

    Args:
        output: as for :func:`~torch_geometric_crystal.benchmark.run_benchmark`.

    Returns:
        What was written, by task; nothing is written if there are no folds.
    """
    from torch_geometric_crystal.benchmark.tasks.pictures import plot_comparison, plot_parity_of_folds

    output = Path(output)
    records = read_records(output)
    summaries = summarize(records)
    if not summaries:
        return []
    write_table(output / SUMMARY_TABLE, _rows(summaries))
    write_text(output / SUMMARY_TEXT, "\n\n".join(_markdown(summary) for summary in summaries) + "\n")
    for summary in summaries:
        plot_comparison(summary, output / f"comparison_{folder_name(summary.name)}.png")
        for score in summary.models:
            of_model = [r for r in records if (r.task, r.model) == (summary.name, score.model)]
            if of_model[0].kind == "regression":
                plot_parity_of_folds(of_model, output / score.model / folder_name(summary.name))
    return summaries


def _rows(summaries: Sequence[TaskSummary]) -> list[dict[str, object]]:
    width = max(score.num_folds for summary in summaries for score in summary.models)
    return [
        {
            "task": summary.name,
            "model": score.model,
            "metric": summary.metric,
            "unit": summary.unit,
            "folds": len(score.scores),
            "mean": score.mean,
            "std": score.std,
            **{f"fold_{k}": score.scores.get(k) for k in range(width)},
            "epochs": score.epochs,
            "minutes": score.minutes,
            "statement": summary.statement,
        }
        for summary in summaries
        for score in summary.models
    ]


def _markdown(summary: TaskSummary) -> str:
    """A heading, what the data are, our models, and the published entries."""
    lines = [f"## {summary.name}", "", f"Data: {summary.statement}.", "", f"| model | {summary.heading} | std | how |"]
    lines.append("|---|---|---|---|")
    for name, mean, std, how in table_rows(summary):
        lines.append(f"| {name} | {format_score(mean)} | {format_score(std, mean)} | {how} |")
    if summary.published:
        lines += ["", f"Published: {summary.published_source}."]
    lines += ["", "By fold:", ""]
    for score in summary.models:
        texts = [f"{fold}: {format_score(value)}" for fold, value in sorted(score.scores.items())]
        lines.append(f"* {score.model}: {', '.join(texts)}")
    return "\n".join(lines)


def table_rows(summary: TaskSummary, shown: int | None = None) -> list[tuple[str, float, float, str]]:
    """Name, mean, standard deviation and a remark for our models and the published entries, best first.

    Args:
        summary: of one task.
        shown: at most so many published entries (CGCNN's stays); all if None.
    """
    entries = summary.published
    if shown is not None:
        entries = entries[:shown] + [entry for entry in entries[shown:] if "CGCNN" in entry.algorithm]
    rows = [(f"{score.model}, here", score.mean, score.std, score.how) for score in summary.models]
    rows += [(entry.algorithm, entry.mean, entry.std, "published") for entry in entries]
    sign = -1.0 if is_better_high(summary.metric) else 1.0
    return sorted(rows, key=lambda row: sign * row[1])


def format_score(value: float, like: float | None = None) -> str:
    """Return a score with four decimals, or two from 10 on; nothing for NaN.

    Args:
        value: the score, or the spread of one.
        like: the score that decides on the decimals; `value` itself if None.
    """
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if abs(value if like is None else like) >= 10.0 else f"{value:.4f}"
