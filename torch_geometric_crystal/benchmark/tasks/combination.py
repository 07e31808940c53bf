"""Several runs of a benchmark as one entry: the mean of what they predict for each crystal."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from torch_geometric_crystal import __version__
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, read_record, read_records
from torch_geometric_crystal.benchmark.tasks.scoring import score_fold, write_fold
from torch_geometric_crystal.benchmark.tasks.task import Task, folder_name
from torch_geometric_crystal.checks import check_argument

Member = tuple[str, str]
"""A run's folder and a model in it."""


def combine_runs(
    runs: Sequence[str | Path], output: str | Path, name: str, load: Callable[[str], Task]
) -> list[FoldRecord]:
    """Record the mean of the predictions of several runs, in ``<output>/<name>/<task>/fold_<k>``.

    Each model in each run is a member, for the tasks and folds that it has; entries that were combined themselves are
    not. Nothing is trained.

    Args:
        runs: folders of :func:`~torch_geometric_crystal.benchmark.run_benchmark`.
        output: folder for the records.
        name: of the entry.
        load: opens a task from its name.

    Returns:
        The new records.

    Raises:
        ValueError: if there are not two members for each task, one lacks a fold that another has, two are the same, or
            `output` has a run that is called so.
    """
    check_argument(folder_name(name) == name, "name", "letters, digits, '_', '-' and dots", name)
    by_task: dict[str, dict[Member, dict[int, FoldRecord]]] = {}
    for run in runs:
        for record in read_records(run):
            if "members" not in record.parameters:
                by_task.setdefault(record.task, {}).setdefault((str(run), record.model), {})[record.fold] = record
    check_argument(bool(by_task), "runs", "folders with finished folds", [str(run) for run in runs])
    combined = []
    for task_name, members in sorted(by_task.items()):
        folds = _shared_folds(task_name, members)
        task = load(task_name)
        folder = Path(output) / name / folder_name(task.name)
        _check_free(folder, name)
        for fold in folds:
            record = combine_records(task, [of_member[fold] for of_member in members.values()], name)
            write_fold(task, record, folder / f"fold_{fold}")
            combined.append(record)
    return combined


def combine_records(task: Task, members: Sequence[FoldRecord], name: str) -> FoldRecord:
    """Return the record of the mean of the members' predictions for one fold.

    Raises:
        ValueError: if there are less than two members, two have the same settings, or one predicted other crystals.
    """
    check_argument(len(members) >= 2, "members", f"at least two for {task.name}", len(members))
    first = members[0]
    settings = [member.parameters["settings"] for member in members]
    twice = [other for k, other in enumerate(settings) if other in settings[:k]]
    check_argument(not twice, "members", "runs of other seeds or other settings", f"the same twice: {twice[:1]}")
    ids = [task.ids[k] for k in task.fold(first.fold).test]
    for member in members:
        fits = (member.task, member.fold, list(member.predictions)) == (task.name, first.fold, ids)
        check_argument(fits, "members", f"fold {first.fold} of {task.name} as it is now", f"{member.model}, other ones")
    values = np.mean([list(member.predictions.values()) for member in members], axis=0)
    parameters = {"members": [dict(member.parameters) for member in members], "torch_geometric_crystal": __version__}
    known = {name: [m.effort[name] for m in members if m.effort[name] is not None] for name in ("epochs", "weights")}
    effort = {
        "ended": "combined",
        "epochs": float(np.mean(known["epochs"])) if known["epochs"] else None,
        "seconds": round(sum(member.effort["seconds"] for member in members), 1),
        "weights": sum(known["weights"]) or None,
    }
    return score_fold(task, first.fold, name, values, parameters, effort)


def _check_free(folder: Path, name: str) -> None:
    """Refuse to write over what was trained; earlier combinations are made anew."""
    for fold in folder.glob("fold_*"):
        record = read_record(fold)
        trained = (fold / "last.ckpt").is_file() or (record is not None and "members" not in record.parameters)
        check_argument(not trained, "name", f"one that no run in {folder.parent.parent} has", name)


def _shared_folds(task: str, members: dict[Member, dict[int, FoldRecord]]) -> list[int]:
    """The folds that all members have, all of them the same."""
    folds = sorted({fold for of_member in members.values() for fold in of_member})
    for (run, model), of_member in members.items():
        missing = sorted(set(folds) - set(of_member))
        check_argument(not missing, "runs", f"the folds {folds} of {task}", f"{model} in {run} without {missing}")
        settings = [record.parameters["settings"] for record in of_member.values()]
        check_argument(settings.count(settings[0]) == len(settings), "runs", "one setting for all folds", run)
    return folds
