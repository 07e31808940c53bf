"""What ``tgcrystal benchmark`` and ``tgcrystal demo`` show: progress of folds, and tables beside published errors."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from torch_geometric_crystal.cli.display import TrainingBar, console

ADVICE = (
    "Published entries are results of full trainings (hundreds of epochs, mostly on GPUs): a short training, or one "
    "fold, says that things work, not how good a model is."
)


def bar_reporter(label: str) -> Sequence[Any]:
    """A bar for a fold that has the terminal for itself."""
    return [TrainingBar(label)]


def line_reporter(label: str) -> Sequence[Any]:
    """Lines for a fold that shares the terminal with others."""
    return [TrainingBar(label, lines=True)]


def show_comparison(summary: Any, shown: int | None = None) -> None:
    """Show a table of our models on a task and the published entries, best first, and which data and protocol it is.

    Args:
        summary: a :class:`~torch_geometric_crystal.benchmark.tasks.summary.TaskSummary`.
        shown: at most so many published entries; all if None.
    """
    from torch_geometric_crystal.benchmark.tasks.summary import format_score, table_rows

    table = Table()
    for column, side in (("model", "left"), (summary.heading, "right"), ("std", "right"), ("how", "left")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    ours = {f"{score.model}, here" for score in summary.models}
    for name, mean, std, how in table_rows(summary, shown):
        style = "bold green" if name in ours else None
        table.add_row(name, format_score(mean), format_score(std, mean), how, style=style)
    out = console()
    out.print(f"{summary.name}: {summary.statement}", style="bold", markup=False, soft_wrap=True)
    out.print(table)
    if summary.published:
        out.print(f"published: {summary.published_source}", style="dim", markup=False, soft_wrap=True)
        out.print(ADVICE, style="dim", soft_wrap=True)
