"""All periodic images within a cutoff: this library's search against pymatgen's compiled one and ASE's.

Supercells of one crystal and a batch of real crystals, at the cutoff of infinite attention's graph. Ours runs with the
C++ kernels, where they are built, and in pure torch (the one that a GPU takes); pymatgen's `find_points_in_spheres`
and ASE's `neighbor_list` run one crystal after the other. Only ours sorts the edges. Each search must find as many
edges as the others before its time is shown.

    python benchmarks/neighbor_search.py
    python benchmarks/neighbor_search.py --device cuda
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list
from command_line import digits, finish, option_parser, read_options, show
from figures import lines, panels, save
from provenance import machine
from timing import measure, median_ratio
from torch_geometric.data import Batch, Data
from workloads import real_crystals, supercell

from torch_geometric_crystal.data.neighbors import neighbor_list
from torch_geometric_crystal.ops import neighbor_search as own
from torch_geometric_crystal.ops.cpp import extension

CUTOFF = 8.64
"""A: what the tolerance of 1e-3 asks for in the crystal of the supercells."""

ATOMS = (100, 1000, 10_000)
CRYSTALS = 128


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = read_options(parser)
    sizes, number, options.rounds = ((100,), 4, 3) if options.quick else (ATOMS, CRYSTALS, options.rounds)
    rows = [row([supercell(atoms)], options) for atoms in sizes]
    rows.append(row(real_crystals(number), options))
    show(rows)
    finish("neighbor_search", options, {"cutoff": CUTOFF, "rows": rows}, partial(_draw, rows, options.device))


def row(crystals: list[Data], options: argparse.Namespace) -> dict[str, Any]:
    """Times of all searches on the same crystals."""
    batch = Batch.from_data_list(crystals).to(options.device)
    searches: dict[str, Callable[[], int]] = {"torch": partial(_pure_torch, batch)}
    if options.device == "cpu" and extension.why_unavailable() is None:
        searches["cpp"] = partial(_ours, batch)
    searches |= {"pymatgen": partial(_pymatgen, crystals), "ase": partial(_ase, crystals)}
    edges = {name: search() for name, search in searches.items()}
    if len(set(edges.values())) != 1:
        raise RuntimeError(f"the searches disagree: {edges}")
    timings = measure(searches, options.device, options.rounds, budget=60.0)
    fastest = timings.get("cpp", timings["torch"])
    found: dict[str, Any] = {"crystals": len(crystals), "atoms": batch.num_nodes, "edges": edges["torch"]}
    for name, timing in timings.items():
        found[f"{name}_ms"] = digits(1e3 * timing.median)
    for name in ("pymatgen", "ase"):
        found[f"{name}/ours"] = digits(median_ratio(timings[name], fastest), 3)
    return found


def _ours(batch: Batch) -> int:
    edges = own.neighbor_search(batch.pos, batch.cell, batch.batch, batch.pbc, CUTOFF, self_images=False)
    return edges.edge_dist.numel()


def _pure_torch(batch: Batch) -> int:
    with patch.object(own, "_has_kernels", lambda search: False):
        return _ours(batch)


def _pymatgen(crystals: list[Data]) -> int:
    return sum(len(neighbor_list(*_arrays(data), CUTOFF)[0]) for data in crystals)


def _ase(crystals: list[Data]) -> int:
    total = 0
    for data in crystals:
        pos, cell, pbc = _arrays(data)
        atoms = Atoms(numbers=data.z.numpy(), positions=pos, cell=cell, pbc=pbc)
        total += len(ase_neighbor_list("ijdS", atoms, CUTOFF)[0])
    return total


def _arrays(data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return data.pos.double().numpy(), data.cell[0].double().numpy(), data.pbc[0].numpy()


def _draw(rows: list[dict[str, Any]], device: str, path: Path) -> None:
    figure, axes = panels(1, f"All images within {CUTOFF} A, one cell, {machine(device)}", width=6)
    cells = [row for row in rows if row["crystals"] == 1]
    names = [key.removesuffix("_ms") for key in cells[0] if key.endswith("_ms")]
    series = {name: [(row["atoms"], row[f"{name}_ms"]) for row in cells] for name in names}
    lines(axes[0], series, "atoms", "ms")
    save(figure, path)


if __name__ == "__main__":
    main()
