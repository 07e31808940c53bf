"""Training step and inference of Crystalformer: times, peak memory, and what takes the time.

Batches of real crystals and the 12 cells of 68 to 152 atoms (workloads.py); the default model, and on the batch of 128
its simplified and half-reciprocal variants. Every path is first compared with the float64 reference on the same batch;
one that is out of tolerance gets no time. Where a measured figure of the authors' code fits (official_figures.py), the
ratio is given: per atom where the atoms of their batch are known, else per batch.

    python benchmarks/step.py                              # times, and on CUDA peak memory
    python benchmarks/step.py --compile --cuda-graphs --autocast --tf32
    python benchmarks/step.py --memory                     # peak memory, each case in a process of its own
    python benchmarks/step.py --variants simplified --seed 1   # other weights
    python benchmarks/step.py --profile                    # the operators or kernels that take the time, as well
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agreement import ModelResults, model_agreement, reference_results
from command_line import digits, finish, option_parser, read_options, show
from fast_paths import FastPath, add_fast_path_options, fast_paths, on_path, runs_of, switched_on
from figures import dots, panels, save
from official_figures import OFFICIAL, official_figure, times_faster
from provenance import machine
from timing import in_own_process, measure, memory_of, profile
from torch_geometric.data import Data
from workloads import (
    VARIANTS,
    batch_of,
    crystals_of,
    describe,
    inference,
    initialised_model,
    supercell,
    training_step,
)

from torch_geometric_crystal.nn import Crystalformer

MODES = ("train", "infer")
WORKLOADS = ("1", "16", "32", "128", "256", "large_cells")
VARIANT_WORKLOAD = "128"
"""Where the variants are timed: the batch for which there are figures of the authors' code."""

COLUMNS = [
    "variant", "workload", "tol", "path", "atoms", "edges", "output_error", "gradient_error", "train_ms",
    "train_times_official", "infer_ms", "infer_times_official", "train_peak_MiB", "infer_peak_MiB",
]  # fmt: skip

SUPERCELLS = (("default", "supercell_4000", "infer"), ("default", "supercell_1000", "train"))


def main() -> None:
    """Run from the command line."""
    options = _options()
    if options.case:
        print(json.dumps(memory_case(*options.case, options)))
        return
    cases = [(variant, workload) for variant in options.variants for workload in _workloads_of(variant, options)]
    if options.memory:
        rows = memory_rows(cases, options)
        show(rows)
        finish("memory", options, {"rows": rows}, lambda path: _draw_memory(rows, machine(options.device), path))
        return
    rows = [row for variant, workload in cases for tol in options.tol for row in times(variant, workload, tol, options)]
    show(rows, COLUMNS)
    if options.profile:
        for row in rows:
            for mode in MODES:
                print(f"\n{row['variant']}, {row['workload']}, {row['path']}, {mode}")
                show(row.get("profile", {}).get(mode, []))
    figures = {"official": [figure._asdict() for figure in OFFICIAL], "rows": rows}
    finish("step", options, figures, lambda path: _draw(rows, machine(options.device), path))


def _options() -> argparse.Namespace:
    parser = option_parser(__doc__)
    add_fast_path_options(parser)
    parser.add_argument("--workloads", nargs="+", help=f"numbers of crystals, or large_cells (default: {WORKLOADS})")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--tol", type=float, nargs="+", default=[1e-3], help="tolerances of the graph (default: 1e-3)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of times")
    parser.add_argument("--profile", action="store_true", help="also what takes the time, by operator or kernel")
    parser.add_argument("--case", nargs=3, metavar=("VARIANT", "WORKLOAD", "MODE"), help=argparse.SUPPRESS)
    options = read_options(parser)
    if options.quick:
        options.workloads, options.rounds, options.tol = options.workloads or ["1"], 3, options.tol[:1]
    options.workloads = options.workloads or list(WORKLOADS)
    return options


def _workloads_of(variant: str, options: argparse.Namespace) -> list[str]:
    if variant == "default" or VARIANT_WORKLOAD not in options.workloads:
        return options.workloads
    return [VARIANT_WORKLOAD]


def times(variant: str, workload: str, tol: float, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each path: errors against the reference, and the times of the paths that agree with it."""
    model = initialised_model(variant, options.device, options.seed)
    transform = model.neighborhood(tol=tol)
    crystals = [transform(data) for data in crystals_of(workload)]
    batch = batch_of(crystals, lambda data: data, options.device)
    expected = reference_results(model, crystals)
    rows, functions = [], {}
    for path in fast_paths(options):
        row = {"variant": variant, "workload": workload, "tol": tol, "path": path.name, **describe(batch)}
        functions[path.name], agreement = checked_functions(model, path, batch, expected, options)
        rows.append({**row, **agreement})
    timings = measure(
        {f"{path}/{mode}": call for path, calls in functions.items() for mode, call in calls.items()},
        options.device, options.rounds,
    )  # fmt: skip
    official = official_figure(machine(options.device), options.device, variant, workload)
    for row in rows:
        for mode, function in functions[row["path"]].items():
            timing = timings[f"{row['path']}/{mode}"]
            row |= {f"{mode}_{key}": value for key, value in timing.summary().items()}
            if official is not None:
                faster = times_faster(official, mode, 1e3 * timing.median, batch.num_nodes)
                row[f"{mode}_times_official"] = digits(faster, 3)
            if options.device == "cuda":
                row[f"{mode}_peak_MiB"] = memory_of(function, "cuda")["peak_MiB"]
            if options.profile:
                row.setdefault("profile", {})[mode] = profile(function, options.device)
    return rows


def checked_functions(
    model: Crystalformer, path: FastPath, batch: Data, expected: ModelResults, options: argparse.Namespace
) -> tuple[dict[str, Callable[[], None]], dict[str, Any]]:
    """What to time on a path, nothing where it is out of tolerance, and its errors."""
    runs = runs_of(copy.deepcopy(model), path, batch, options.device)
    with switched_on(path):
        agreement = model_agreement(runs.results(), expected, path.precision)
    if not agreement.good:
        return {}, agreement.summary()
    return {mode: on_path(path, getattr(runs, mode)) for mode in MODES}, agreement.summary()


def memory_rows(cases: list[tuple[str, str]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of each case, in a process of its own."""
    wanted = [(variant, workload, mode) for variant, workload in cases for mode in MODES]
    shared = ["--device", options.device, "--tol", str(options.tol[0])]
    if options.threads is not None:
        shared += ["--threads", str(options.threads)]
    if options.backend:
        shared += ["--backend", options.backend[0]]
    if options.quick:
        return [memory_case(*case, options) for case in wanted]
    wanted += SUPERCELLS
    return [in_own_process(__file__, "--case", *case, *shared) for case in wanted]


def memory_case(variant: str, workload: str, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """Memory of this process before and at the peak of its first step."""
    model = initialised_model(variant)
    start = time.perf_counter()
    is_supercell = workload.startswith("supercell_")
    crystals = [supercell(int(workload.split("_")[1]))] if is_supercell else crystals_of(workload)
    batch = batch_of(crystals, model.neighborhood(tol=options.tol[0]), options.device)
    graph_seconds = time.perf_counter() - start
    model = model.to(options.device)
    path = FastPath(options.backend[0] if options.backend else "auto")
    function = {"train": training_step, "infer": inference}[mode](model, model, batch)
    row = {"variant": variant, "workload": workload, "mode": mode, "tol": options.tol[0], "path": path.name}
    row |= {**describe(batch), "graph_s": digits(graph_seconds, 3)}
    return row | memory_of(on_path(path, function), options.device)


def _draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    figure, axes = panels(len(MODES), f"Crystalformer, {where}")
    groups = list(dict.fromkeys(_group(row) for row in rows))
    for panel, mode in zip(axes, MODES, strict=True):
        series = {
            name: [_find(rows, group, name, f"{mode}_ms") for group in groups]
            for name in dict.fromkeys(row["path"] for row in rows)
        }
        dots(panel, groups, series, f"{'training step' if mode == 'train' else 'inference'}, ms")
    save(figure, path)


def _group(row: dict[str, Any]) -> str:
    return f"{row['workload']}, {row['variant']}, {row['tol']:g}"


def _find(rows: list[dict[str, Any]], group: str, path: str, key: str) -> float | None:
    return next((row.get(key) for row in rows if _group(row) == group and row["path"] == path), None)


def _draw_memory(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    figure, axes = panels(1, f"Peak memory, {where}", width=8)
    groups = [f"{row['workload']}, {row['variant']}, {row['mode']}" for row in rows]
    values = {name: [float(row[f"{name}_MiB"]) for row in rows] for name in ("peak", "before")}
    dots(axes[0], groups, values, "MiB")
    save(figure, path)


if __name__ == "__main__":
    main()
