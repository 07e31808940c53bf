"""Run by test_crystal_dataset.py in a process of its own, which makes others: their files tell what happened.

Arguments: the source, the folder of the cache, the folder for signals.

1. Two processes ask for the data set at the same moment.
2. A third one makes it again and is killed in the middle of writing the cache.
3. This one asks for it.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.datasets import CrystalDataset


class Logged(BaseTransform):
    """Writes its process's number to a file at each call, and takes its time."""

    def __init__(self, log: str):
        self.log = log

    def forward(self, data):
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.05)
        return data


def ask(source: str, root: str, folder: Path, name: str, force_reload: bool = False) -> None:
    transform = Logged(str(folder / "log"))
    dataset = CrystalDataset(source, root, pre_transform=transform, num_workers=0, force_reload=force_reload, log=False)
    (folder / name).write_text(f"{len(dataset)} {float(dataset.y.sum())} {dataset.errors}")


def ask_together(source: str, root: str, folder: Path, number: int) -> None:
    (folder / f"ready{number}").touch()
    while not ((folder / "ready0").exists() and (folder / "ready1").exists()):
        time.sleep(0.001)
    ask(source, root, folder, f"answer{number}")


def ask_and_hang(source: str, root: str, folder: Path) -> None:
    def hang(descriptor: int) -> None:
        (folder / "midway").touch()
        time.sleep(600)

    os.fsync = hang
    ask(source, root, folder, "never", force_reload=True)


def start(function, *arguments) -> int:
    process = os.fork()
    if process == 0:
        status = 1
        try:
            function(*arguments)
            status = 0
        finally:
            os._exit(status)
    return process


def main(source: str, root: str, signals: str) -> None:
    folder = Path(signals)
    processes = [start(ask_together, source, root, folder, number) for number in (0, 1)]
    statuses = [os.waitpid(process, 0)[1] for process in processes]
    (folder / "statuses").write_text(repr(statuses))
    shutil.copytree(root, folder / "before")
    process = start(ask_and_hang, source, root, folder)
    while not (folder / "midway").exists():
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    shutil.copytree(root, folder / "after")
    ask(source, root, folder, "answer2")


if __name__ == "__main__":
    main(*sys.argv[1:])
