"""Run ``tgcrystal benchmark matbench`` on a tiny official task in processes that are killed with SIGKILL.

Arguments: a folder. Each process is a fork of this one, which has loaded everything and runs one thread. Writes
``phases.json``: how each process ended; ``epochs.txt``: a line for each epoch that was completed and saved.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from matbench.metadata import mbv01_metadata, mbv01_validation

from tests.benchmark.tasks import tiny_matbench as tiny
from torch_geometric_crystal.benchmark import training
from torch_geometric_crystal.benchmark.tasks import fold, submission
from torch_geometric_crystal.cli import main
from torch_geometric_crystal.datasets import processing

EPOCHS, FOLDS = 3, 5
FLAGS = ["--model", "cgcnn", "--model-option", "channels=8", "--epochs", str(EPOCHS), "--batch-size", "4"]
PHASES = ["graphs", "epoch", "prediction", "record", "results"]


def kill_at(owner, name, count, condition=lambda *arguments: True):
    """Have this process killed at the call number `count` of a function that fulfils a condition."""
    original, calls = getattr(owner, name), [0]

    def wrapper(*arguments, **keywords):
        calls[0] += bool(condition(*arguments))
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return original(*arguments, **keywords)

    setattr(owner, name, wrapper)


def install(phase):
    """Arrange the kill: while graphs are made, within an epoch, before predicting, when files take their place."""
    if phase == "graphs":
        kill_at(processing.Recipe, "__call__", 5)
    elif phase == "epoch":
        kill_at(training._Fit, "_step", 10)
    elif phase == "prediction":
        kill_at(fold, "predict", 2)
    elif phase == "record":
        kill_at(os, "replace", 2, lambda source, target: str(target).endswith("fold.json"))
    elif phase == "results":
        kill_at(os, "replace", 1, lambda source, target: str(target).endswith(submission.RESULTS_FILE))


def note_epochs(path):
    """Append a line for each epoch that is saved."""
    original = training._Fit._finish_epoch

    def wrapper(self, clock):
        original(self, clock)
        with open(path, "a") as file:
            file.write(f"{self.last.parent.name} {self.progress.epoch}\n")

    training._Fit._finish_epoch = wrapper


def run(output, phase=None):
    """Run the command in a fork; returns the signal that ended it, or minus its exit code."""
    child = os.fork()
    if child == 0:
        note_epochs(output / "epochs.txt")
        install(phase)
        sys.argv = [
            "tgcrystal",
            "benchmark",
            "matbench",
            "--data-dir",
            str(output.parent),
            "--output",
            str(output),
            *FLAGS,
        ]
        code = 1
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    metadata, folds = tiny.tables(tiny.write_tiny_file(folder))
    mbv01_metadata[tiny.NAME] = metadata
    mbv01_validation.splits[tiny.NAME] = folds
    ended = {}
    for output in (folder / "killed", folder / "whole"):
        output.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(output / "cache")
        if output.name == "killed":
            ended |= {phase: run(output, phase) for phase in PHASES}
        ended[output.name] = run(output)
    ended["again"] = run(folder / "whole")
    (folder / "phases.json").write_text(json.dumps(ended))
