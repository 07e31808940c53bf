"""Training runs of an experiment: one process and one thread each, finished ones kept, interrupted ones continued."""

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from command_line import digits
from torch import nn
from tqdm import tqdm

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.recording import write_json
from torch_geometric_crystal.benchmark.run import train_and_evaluate
from torch_geometric_crystal.benchmark.sources import CrystalParts

Measure = Callable[[nn.Module, CrystalParts], dict[str, Any]]


@dataclass(frozen=True)
class Trial:
    """One training run.

    Args:
        labels: what tells it from the others, its seed among them: the first columns of its row.
        config: model, recipe, graph and seed.
        parts: makes the crystals with their graphs and targets from the configuration; a function of a module, or a
            ``functools.partial`` of one, so that processes can have it.
        measure: more columns from the trained model and the crystals.
    """

    labels: dict[str, Any]
    config: RunConfig
    parts: Callable[[RunConfig], CrystalParts]
    measure: Measure | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(f"{name}={value}" for name, value in self.labels.items()).replace("/", "_").replace(" ", "_")


def run_trials(trials: Sequence[Trial], work: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Train, and return a row for each trial, in order.

    A row has the labels, ``epochs``, ``minutes``, ``parameters``, ``val_mae`` and ``test_mae`` of the reported weights
    (averaged ones where there are any), ``mean_mae`` of the mean predictor in the test part, and what was measured.
    Errors are in the unit of the target; of several targets, their mean. A trial whose row is in `work`, with the same
    settings, is not run again. With more than one job, the script needs ``if __name__ == "__main__":``.

    Raises:
        ValueError: if two trials have the same labels.
    """
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ValueError("two trials of the experiment have the same labels")
    if jobs == 1:
        return [_run(trial, work / trial.name) for trial in tqdm(trials, unit="trial")]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(_run, trial, work / trial.name) for trial in trials]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="trial"):
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _run(trial: Trial, folder: Path) -> dict[str, Any]:
    finished = folder / "row.json"
    settings = json.loads(json.dumps(trial.config.to_dict()))
    if finished.exists():
        kept = json.loads(finished.read_text())
        if kept["settings"] == settings:
            return kept["row"]
    crystals = trial.parts(trial.config)
    result = train_and_evaluate(trial.config, crystals, folder, resume=True)
    if result.model is None:
        raise KeyboardInterrupt
    metrics = result.metrics
    reported = metrics["reported_weights"]
    row = trial.labels | {
        "epochs": metrics["training"]["epochs"],
        "minutes": digits(metrics["training"]["seconds"] / 60, 3),
        "parameters": metrics["parameters"],
        "val_mae": _mae(metrics["validation"][reported]["targets"]),
        "test_mae": _mae(metrics["test"][reported]["targets"]),
        "mean_mae": _mae(metrics["mean_predictor"]),
    }
    if trial.measure is not None:
        row |= trial.measure(result.model, crystals)
    write_json(finished, {"settings": settings, "row": row})
    return row


def _mae(targets: dict[str, Any]) -> float | None:
    return digits(sum(target["mae"] for target in targets.values()) / len(targets), 5)
