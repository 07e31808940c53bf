"""An official task in small: a file in Matbench's own format, with its checksum and five folds in matbench's tables."""

import gzip
import hashlib
import json

from matbench.metadata import mbv01_metadata, mbv01_validation

from torch_geometric_crystal.datasets.bundled import FILES
from torch_geometric_crystal.datasets.matbench_phonons import k_folds

NAME, NUM_CRYSTALS = "matbench_phonons", 30


def write_tiny_file(folder, name=NAME, column="last phdos peak", values=None):
    """Write the first structures of the bundled task as ``<name>.json.gz``."""
    with gzip.open(FILES / "matbench_phonons.json.gz") as file:
        table = json.load(file)
    rows = table["data"][:NUM_CRYSTALS]
    if values is not None:
        rows = [[structure, value] for (structure, _), value in zip(rows, values, strict=True)]
    content = {"index": list(range(NUM_CRYSTALS)), "columns": ["structure", column], "data": rows}
    path = folder / f"{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return path


def tables(path, name=NAME):
    """What to put into matbench's metadata and validation tables to make the file at `path` the official one."""
    metadata = type(mbv01_metadata)(dict(mbv01_metadata[name]))
    metadata["hash"] = hashlib.sha256(path.read_bytes()).hexdigest()
    metadata["n_samples"] = NUM_CRYSTALS
    names = [f"mb-{name.removeprefix('matbench_').replace('_', '-')}-{k:02d}" for k in range(1, NUM_CRYSTALS + 1)]
    folds = {
        f"fold_{number}": {part: [names[k] for k in fold[part]] for part in ("train", "test")}
        for number, fold in enumerate(k_folds(NUM_CRYSTALS))
    }
    return metadata, type(mbv01_validation)(folds)


def pretend_official(monkeypatch, folder, name=NAME, **content):
    """Write a tiny file and make it the official one of its task for a test; returns its path."""
    path = write_tiny_file(folder, name, **content)
    metadata, folds = tables(path, name)
    monkeypatch.setitem(mbv01_metadata, name, metadata)
    monkeypatch.setitem(mbv01_validation.splits, name, folds)
    return path
