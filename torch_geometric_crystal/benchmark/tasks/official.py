"""Official tasks of Matbench v0.1: the file is checked by its SHA-256, the folds are those of the matbench package."""

import os
from pathlib import Path

import numpy as np

from torch_geometric_crystal.benchmark.tasks.matbench_package import official_folds, quiet, task_metadata
from torch_geometric_crystal.benchmark.tasks.task import Split, Task
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.bundled import FILES
from torch_geometric_crystal.datasets.fingerprint import hash_file
from torch_geometric_crystal.datasets.readers.matbench_json import MatbenchSource

PREFIX = "matbench_"


def official_tasks() -> list[str]:
    """Return the names of Matbench's nine structure tasks."""
    return sorted(task_metadata())


def load_official_task(name: str, data_dir: str | Path | None = None, download: bool = False) -> Task:
    """Return an official task, its data read from a file on this machine and checked by SHA-256.

    Args:
        name: a structure task of Matbench v0.1.
        data_dir: folder with ``<name>.json.gz``. Default: ``MATMINER_DATA``, if that is set and has the file, else
            the package, which has matbench_phonons.
        download: whether matminer may download a file that is not there into that folder.

    Raises:
        MissingDependencyError: without matbench and matminer.
        ValueError: for an unknown task, or a file that is not the official one.
        FileNotFoundError: if the file is not there and is not to be downloaded.
    """
    known = task_metadata()
    check_argument(name in known, "task", f"one of {', '.join(sorted(known))}", name)
    metadata = known[name]
    path = _task_file(name, data_dir)
    if not path.is_file() and download:
        _download(name, path.parent)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: get it from {metadata.url} and name its folder with --data-dir, or add --download "
            "where there is a network"
        )
    found = hash_file(path)
    if found != metadata.hash:
        raise ValueError(f"{path} is not the official file of {name}: its SHA-256 is {found}. Get it again")
    source = MatbenchSource(path, str(metadata.target), task=name)
    entries = list(source)
    ids = tuple(entry.structure_id for entry in entries)
    position = {structure_id: k for k, structure_id in enumerate(ids)}
    splits = tuple(
        Split(tuple(position[i] for i in fold["train"]), tuple(position[i] for i in fold["test"]))
        for fold in official_folds(name)
    )
    return Task(
        name=name,
        statement=f"the official Matbench v0.1 task {name}: its file (SHA-256 checked), its folds, its scores",
        official=True,
        published_as=name,
        source=source,
        positions=tuple(range(len(ids))),
        ids=ids,
        values=np.array([entry.targets[0] for entry in entries if entry.targets is not None]),
        target=str(metadata.target),
        unit=str(metadata.unit or "").replace("cm^-1", "1/cm"),
        kind=str(metadata.task_type),
        splits=splits,
    )


def _task_file(name: str, data_dir: str | Path | None) -> Path:
    given = os.environ.get("MATMINER_DATA") if data_dir is None else data_dir
    path = Path(given or FILES).expanduser() / f"{name}.json.gz"
    bundled = FILES / path.name
    return bundled if data_dir is None and not path.is_file() and bundled.is_file() else path


def _download(name: str, folder: Path) -> None:
    """Let matminer fetch the file; it reads it, too, which is not needed here."""
    from matminer.datasets.dataset_retrieval import load_dataset

    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        load_dataset(name, data_home=str(folder))
