"""Structures a second from a file to a model's graphs: by several processes, by one, and by the plain loop.

    python benchmarks/preparation.py STORE.npz                    20,000 structures, 1 and 2 processes
    python benchmarks/preparation.py STORE.npz --number 2000 --processes 1 2 4 8
    python benchmarks/preparation.py --quick                      a few bundled structures

The structures are spread evenly over a compact store. "loop" is the habit of the published CGCNN and ALIGNN codes: one
pymatgen structure at a time, its neighbours from ``Structure.get_all_neighbors`` within 8 A, the 12 nearest of each
atom, sorted in Python (for ALIGNN also the pairs of edges); it is timed on `LOOP` structures. The others are timed as
a user meets them: `CrystalDataset` with the model's transform, from the compact store to the written cache; and "hit",
the same call again. Writes results/preparation.json.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import digits, show
from provenance import record

from torch_geometric_crystal.benchmark.checkpoint import build_model
from torch_geometric_crystal.data import to_structure
from torch_geometric_crystal.datasets import CompactStore, CrystalDataset, Elastic2015, write_compact_store

LOOP = 200
"""Structures on which the plain loop is timed."""

NEIGHBORS, RADIUS = 12, 8.0


def plain_loop(structures: Sequence[Any], pairs: bool) -> None:
    """Neighbours of one structure at a time, in Python."""
    for structure in structures:
        edges = []
        for center, neighbors in enumerate(structure.get_all_neighbors(RADIUS, include_index=True)):
            nearest = sorted(neighbors, key=lambda neighbor: neighbor.nn_distance)[:NEIGHBORS]
            edges += [(center, n.index, tuple(n.image), n.nn_distance) for n in nearest]
        incoming: dict[int, list[int]] = {}
        for number, (center, *_) in enumerate(edges):
            incoming.setdefault(center, []).append(number)
        if pairs:
            torch.tensor([(first, second) for second, edge in enumerate(edges) for first in incoming[edge[1]]])
        torch.tensor([edge[:2] for edge in edges])


def choose(path: Path | None, number: int, folder: Path) -> Path:
    """A compact store of `number` structures, spread evenly over that in `path`."""
    chosen = folder / "chosen.npz"
    if path is None:
        dataset = Elastic2015(log=False)
        write_compact_store(chosen, [dataset[k] for k in range(number)], dataset.target_names)
        return chosen
    store = CompactStore(path)
    number = min(number, len(store))
    places = np.linspace(0, len(store) - 1, number).round().astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_compact_store(chosen, (store[int(k)] for k in places), store.target_names)
    return chosen


def prepare(path: Path, name: str, processes: int, folder: Path) -> tuple[float, float, int]:
    """Seconds to make the data set, seconds to open it again, and edges."""
    transform = build_model(name, {}).neighborhood()  # type: ignore[operator]
    settings: dict[str, Any] = {"root": folder, "pre_transform": transform, "on_error": "skip", "log": False}
    workers = 0 if processes == 1 else processes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        CrystalDataset(path, num_workers=workers, **settings)
        made = time.perf_counter()
        dataset = CrystalDataset(path, num_workers=workers, **settings)
        dataset[0]
        opened = time.perf_counter()
    edges = int(dataset._data.edge_index.size(1))
    return made - start, opened - made, edges


def main() -> None:
    """Run, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?", help="compact store (.npz); default: elastic_2015")
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that everything works")
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", default=["crystalformer", "cgcnn", "alignn"])
    parser.add_argument("--output", type=Path, help="JSON file (default: results/preparation.json)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.number, options.processes, options.models = 20, [1], ["cgcnn"]
    elif options.store is None:
        parser.error("give a compact store, such as one that tgcrystal convert writes, or --quick")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = choose(options.store, options.number, folder)
        store = CompactStore(path)
        sample = [to_structure(store[k]) for k in range(0, len(store), max(1, len(store) // LOOP))]
        for model in options.models:
            start = time.perf_counter()
            plain_loop(sample, model == "alignn")
            loop = len(sample) / (time.perf_counter() - start)
            for processes in options.processes:
                made, opened, edges = prepare(path, model, processes, folder / f"{model}-{processes}")
                rate = len(store) / made
                figures = {"model": model, "processes": processes, "structures": len(store), "edges": edges}
                figures |= {"seconds": digits(made, 3), "per_second": digits(rate, 3)}
                figures |= {"loop_per_second": digits(loop, 3), "times_loop": digits(rate / loop, 3)}
                rows.append(figures | {"hit_s": digits(opened, 3)})
                show(rows[-1:])
    show(rows)
    data = "elastic_2015" if options.store is None else options.store.name
    output = options.output or (Path(tempfile.gettempdir()) / "preparation.json" if options.quick else None)
    print(record("preparation", {"data": data, "loop_structures": LOOP, "rows": rows}, output))


if __name__ == "__main__":
    main()
