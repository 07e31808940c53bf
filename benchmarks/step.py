"""Time and memory of Crystalformer on the CPU: training step and inference, real structures, batches and large cells.

The figures are compared with the authors' PyTorch path on 2 cores, which takes 13.6 s for a training step and 4.0 s for
inference of 16 crystals of 176 atoms of the same data set (measured once, elsewhere; their code is not run here).

    python benchmarks/step.py                 # times
    python benchmarks/step.py --memory        # peak memory of large cells, each in a process of its own
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from provenance import record
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.datasets import FLLA2015
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.transforms import Supercell

OFFICIAL_SECONDS_PER_ATOM = {"train": 13.6 / 176, "infer": 4.0 / 176}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tol", type=float, nargs="+", default=[1e-2, 1e-3, 1e-4], help="tolerances of the graph")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", action="store_true", help="peak memory of large cells instead of times")
    parser.add_argument("--large-cell", choices=["train", "infer"], help=argparse.SUPPRESS)
    parser.add_argument("--atoms", type=int, default=4000, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results)")
    arguments = parser.parse_args()
    if arguments.large_cell:
        print(json.dumps(run_large_cell(arguments.large_cell, arguments.atoms, arguments.tol[0])))
    elif arguments.memory:
        rows = [in_own_process("infer", 4000), in_own_process("train", 1000)]
        show(rows)
        print(record("memory", {"rows": rows}, arguments.output))
    else:
        rows = times(arguments.batch_size, arguments.tol, arguments.repeats)
        show(rows)
        print(record("step", {"official_seconds_per_atom": OFFICIAL_SECONDS_PER_ATOM, "rows": rows}, arguments.output))


def times(batch_sizes: list[int], tolerances: list[float], repeats: int) -> list[dict]:
    """Median times of batches of the training set's first crystals, in the order of their hashes."""
    torch.manual_seed(0)
    model = Crystalformer()
    crystals = real_crystals(max(batch_sizes))
    rows = []
    for batch_size in batch_sizes:
        for tol in tolerances:
            transform = model.neighborhood(tol=tol)
            batch = Batch.from_data_list([transform(data.clone()) for data in crystals[:batch_size]])
            row = {"batch": batch_size, "tol": tol, "atoms": batch.num_nodes, "edges": batch.num_edges}
            for mode in ("train", "infer"):
                seconds = median_seconds(step(model, batch, mode), repeats)
                row[f"{mode}_ms"] = round(1e3 * seconds, 2)
                row[f"{mode}_ms_per_atom"] = round(1e3 * seconds / batch.num_nodes, 4)
                row[f"{mode}_speedup"] = round(OFFICIAL_SECONDS_PER_ATOM[mode] / (seconds / batch.num_nodes), 1)
            rows.append(row)
    return rows


def step(model: Crystalformer, batch: Data, mode: str) -> Callable[[], None]:
    """A function that runs one training step or one inference."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        model(batch).abs().mean().backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            model(batch)

    return train if mode == "train" else infer


def median_seconds(function: Callable[[], None], repeats: int) -> float:
    """Median wall time after two runs that are not counted."""
    seconds = []
    for run in range(repeats + 2):
        start = time.perf_counter()
        function()
        if run >= 2:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def real_crystals(number: int) -> list[Data]:
    """The first crystals of the training part of FLLA2015."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = FLLA2015(root=folder, log=False)
        return [dataset[index] for index in dataset.split()["train"][:number]]


def run_large_cell(mode: str, atoms: int, tol: float) -> dict:
    """Peak memory of this process for one supercell of about `atoms` atoms, graph included."""
    torch.manual_seed(0)
    primitive = real_crystals(1)[0]
    repeats = [1, 1, 1]
    while primitive.num_nodes * repeats[0] * repeats[1] * repeats[2] < atoms:
        lengths = primitive.cell[0].norm(dim=1) * torch.tensor(repeats)
        repeats[int(lengths.argmin())] += 1
    model = Crystalformer()
    data = model.neighborhood(tol=tol)(Supercell(repeats)(primitive))
    start = time.perf_counter()
    step(model, data, mode)()
    return {
        "mode": mode,
        "atoms": data.num_nodes,
        "edges": data.num_edges,
        "tol": tol,
        "seconds": round(time.perf_counter() - start, 2),
        "peak_MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def in_own_process(mode: str, atoms: int, tol: float = 1e-3) -> dict:
    """:func:`run_large_cell`, so that the peak is that of this case alone."""
    command = [sys.executable, __file__, "--large-cell", mode, "--atoms", str(atoms), "--tol", str(tol)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def show(rows: list[dict]) -> None:
    """Print rows as a table."""
    print("  ".join(f"{name:>18}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>18}" for value in row.values()))


if __name__ == "__main__":
    main()
