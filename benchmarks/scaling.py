"""Time and memory of the default model against atoms per cell and against atoms in a batch: are they linear?

One axis is supercells of one crystal, 10 to 10,000 atoms in a cell; the other batches of real crystals. Each point runs
in a process of its own (but in a quick run): graph, first step with its peak of memory, then the time of further steps.
The slope of log(time) and of log(memory beyond what was there before) against log(atoms) is fitted over the largest
factor of ten; linear is 1.

Each point is compared with the float64 reference before its time is shown. A supercell describes the same crystal as
its smallest cell, with the same output and, the output being a mean over atoms, the same gradients, so the reference of
the smallest cell is that of all. Batches of more than 20,000 atoms are compared with the blocked backend in float64.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --cells --batches 100000
    python benchmarks/scaling.py --device cuda --batches 100 1000 10000 100000
    python benchmarks/scaling.py --cells 10000 100000 1000000 --batches --edges streamed --output streamed_cpu
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from agreement import model_agreement, model_results, reference_results
from command_line import digits, finish, option_parser, read_options, show
from fast_paths import FastPath, switched_on
from figures import lines, panels, save
from provenance import machine
from timing import in_own_process, measure, memory_of
from torch_geometric.data import Data
from workloads import batch_of, describe, inference, initialised_model, real_crystals, supercell, training_step

MODES = {"infer": inference, "train": training_step}
CELLS = (10, 30, 100, 300, 1000, 3000, 10_000)
BATCHES = {"cpu": (100, 300, 1000, 3000, 10_000), "cuda": (100, 300, 1000, 3000, 10_000, 30_000, 100_000)}
QUANTITIES = {"seconds": "s", "memory_MiB": "MiB"}
MEASURABLE_MIB = 8.0
"""Less than this is not told from the noise of a process's memory, and left out of the fit."""


REFERENCE_ATOMS = 20_000
"""In larger batches the judge is the blocked backend in float64, a few crystals at a time."""


class Slope(NamedTuple):
    """Exponent of a power law, and the atoms between which it was fitted."""

    exponent: float
    first: int
    last: int
    points: int


def main() -> None:
    """Run from the command line."""
    options = _options()
    if options.point:
        axis, atoms, mode = options.point
        print(json.dumps(point(axis, int(atoms), mode, options)))
        return
    rows = []
    for axis, sizes in (("cell", options.cells), ("batch", options.batches)):
        for atoms in sizes:
            for mode in options.modes:
                words = ("--point", axis, str(atoms), mode, *_shared(options))
                row = point(axis, atoms, mode, options) if options.quick else in_own_process(__file__, *words)
                print(f"{axis} {row['atoms']:,} atoms {mode}: {row.get('seconds', 'out of tolerance')}", flush=True)
                rows.append(row)
    show(rows)
    slopes = fitted_slopes(rows)
    for slope in slopes:
        print(
            f"{slope['axis']}, {slope['mode']}, {slope['quantity']}: slope {slope['exponent']:.3f} "
            f"from {slope['first']:,} to {slope['last']:,} atoms ({slope['points']} points)"
        )
    figures = {"rows": rows, "slopes": slopes}
    finish("scaling", options, figures, lambda path: _draw(rows, machine(options.device), path))


def _options() -> argparse.Namespace:
    parser = option_parser(__doc__)
    parser.add_argument("--cells", type=int, nargs="*", help=f"atoms per cell (default: {CELLS})")
    parser.add_argument("--batches", type=int, nargs="*", help="atoms in a batch (default: to 10,000; CUDA: 100,000)")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--tol", type=float, default=1e-3, help="tolerance of the graph (default: 1e-3)")
    parser.add_argument("--edges", choices=("stored", "streamed"), default="stored")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--point", nargs=3, metavar=("AXIS", "ATOMS", "MODE"), help=argparse.SUPPRESS)
    options = read_options(parser)
    if options.quick:
        options.cells, options.batches, options.modes, options.rounds = [10, 20], [20], ["train"], 3
    options.cells = CELLS if options.cells is None else options.cells
    options.batches = BATCHES[options.device] if options.batches is None else options.batches
    return options


def _shared(options: argparse.Namespace) -> list[str]:
    given = {"device": options.device, "backend": options.backend, "tol": options.tol, "rounds": options.rounds}
    given["edges"] = options.edges
    if options.threads is not None:
        given["threads"] = options.threads
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def point(axis: str, atoms: int, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """Graph, memory, agreement and time of one size."""
    path = FastPath(options.backend)
    model = initialised_model()
    transform = model.neighborhood(tol=options.tol, edges=options.edges)
    crystals = [supercell(atoms)] if axis == "cell" else crystals_with(atoms)
    start = time.perf_counter()
    graphs = [transform(data) for data in crystals]
    graph_seconds = time.perf_counter() - start
    batch = batch_of(graphs, lambda data: data, options.device)
    model = model.to(options.device)
    row = {
        "axis": axis,
        "mode": mode,
        "tol": options.tol,
        "stored_edges": options.edges == "stored",
        "path": path.name,
        **describe(batch),
    }
    row["graph_s"] = digits(graph_seconds, 3)
    run = MODES[mode](model, model, batch)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with switched_on(path):
        memory = memory_of(run, options.device)
        row |= {**memory, "memory_MiB": memory["peak_MiB"] - memory["before_MiB"]}
        model.load_state_dict(state)
        actual = model_results(model.eval(), model, batch)
    stored = model.neighborhood(tol=options.tol)
    judged = [stored(crystal) for crystal in (real_crystals(1) if axis == "cell" else crystals)]
    judge = "reference" if axis == "cell" or batch.num_nodes <= REFERENCE_ATOMS else "blocked"
    agreement = model_agreement(actual, reference_results(model, judged, judge))
    row |= {"judge": judge, **agreement.summary()}
    if agreement.good:
        with switched_on(path):
            timing = measure({mode: run}, options.device, options.rounds, budget=60.0)[mode]
        row |= {"seconds": digits(timing.median), "us_per_atom": digits(1e6 * timing.median / batch.num_nodes)}
    return row


def crystals_with(atoms: int) -> list[Data]:
    """As many real crystals as have at least `atoms` atoms together."""
    number = 1
    while sum(data.num_nodes for data in real_crystals(number)) < atoms:
        number *= 2
    total, chosen = 0, []
    for data in real_crystals(number):
        if total >= atoms:
            break
        chosen.append(data)
        total += data.num_nodes
    return chosen


def fitted_slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slopes over the largest factor of ten of each axis, where it holds at least two points."""
    slopes = []
    for axis, mode in dict.fromkeys((row["axis"], row["mode"]) for row in rows):
        for quantity in QUANTITIES:
            points = [(row["atoms"], row.get(quantity)) for row in rows if (row["axis"], row["mode"]) == (axis, mode)]
            least = MEASURABLE_MIB if quantity == "memory_MiB" else 0.0
            slope = fit([(atoms, value) for atoms, value in points if value is not None and value > least])
            if slope is not None:
                slopes.append({"axis": axis, "mode": mode, "quantity": quantity, **slope._asdict()})
    return slopes


def fit(points: list[tuple[int, float]]) -> Slope | None:
    """Least squares of log(value) against log(atoms), over sizes of at least a tenth of the largest."""
    largest = max((atoms for atoms, _ in points), default=0)
    used = [(math.log(atoms), math.log(value)) for atoms, value in points if atoms >= 0.09 * largest]
    if len(used) < 2:
        return None
    x_mean, y_mean = (sum(values) / len(used) for values in zip(*used, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in used)
    exponent = sum((x - x_mean) * (y - y_mean) for x, y in used) / spread
    sizes = [round(math.exp(x)) for x, _ in used]
    return Slope(float(f"{exponent:.3f}"), min(sizes), max(sizes), len(used))


def _draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    figure, axes = panels(2, f"Crystalformer, one point a process, {where}")
    for panel, (quantity, unit) in zip(axes, QUANTITIES.items(), strict=True):
        series = {
            f"{axis}, {mode}": [
                (row["atoms"], row[quantity])
                for row in rows
                if (row["axis"], row["mode"]) == (axis, mode) and row.get(quantity)
            ]
            for axis, mode in dict.fromkeys((row["axis"], row["mode"]) for row in rows)
        }
        lines(panel, series, "atoms", unit, {"seconds": "time", "memory_MiB": "memory beyond the inputs"}[quantity])
    save(figure, path)


if __name__ == "__main__":
    main()
