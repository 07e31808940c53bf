"""The authors' code and ours: same weights, same crystals, one process, taking turns.

Needs a clone of github.com/omron-sinicx/crystalformer; for its CUDA path also CuPy and pytorch-pfn-extras. Their
weights are drawn by their own code, enlarged so that no error can hide (workloads.py), and translated. Ours must first
agree with the float64 reference; how far their outputs are from that same reference, and from ours, is recorded: on the
CPU their box of images (--lattice-range) truncates the sum.

Our graphs are made before, once for each crystal (`graph_ms`, not in the times); their code finds the images anew in
every pass, which is in theirs.

The ratio is the median over rounds of their time over ours in the same round: wall time, and on the CPU also processor
time, which what else runs on the machine disturbs less.

    python benchmarks/against_official.py --checkout ~/crystalformer
    python benchmarks/against_official.py --checkout ~/crystalformer --device cuda --workloads 128 256 large_cells
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from agreement import model_agreement, model_results, reference_results, relative_error
from command_line import digits, finish, option_parser, read_options, show
from fast_paths import FastPath, on_path, switched_on, timed_backends
from figures import dots, panels, save
from official_code import (
    UnusableCheckoutError,
    initialise,
    official_batch,
    official_model,
    official_settings,
    translatable_settings,
    translatable_state,
)
from provenance import checkout_revision, machine
from timing import Timing, measure, median_ratio, memory_of
from torch import nn
from torch_geometric.data import Data
from workloads import VARIANTS, batch_of, crystals_of, describe, enlarge_weights, inference, training_step

from torch_geometric_crystal.nn import Crystalformer

MODES = {"train": training_step, "infer": inference}
COLUMNS = [
    "variant", "workload", "atoms", "edges", "graph_ms", "backend", "output_error", "gradient_error",
    "official_output_error", "difference", "mode", "official_ms", "ms", "ratio", "official_processor_ms",
    "processor_ms", "processor_ratio", "official_peak_MiB", "peak_MiB",
]  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help="a clone of omron-sinicx/crystalformer")
    parser.add_argument("--workloads", nargs="+", help="numbers of crystals, or large_cells (default: 16; CUDA: 128)")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["default"])
    parser.add_argument("--backend", nargs="+", help="ours (default: all that can run but the reference)")
    parser.add_argument("--tol", type=float, default=1e-3, help="tolerance of our graph (default: 1e-3)")
    parser.add_argument("--merge-tolerance", type=float, help="merge like atoms in our graph (default: all atoms)")
    parser.add_argument("--lattice-range", type=int, default=2, help="their images, -n .. n an axis (default: 2)")
    parser.add_argument("--reproducibility", type=int, default=0, help="their REPRODUCIBLITY_STATE (default: 0)")
    parser.add_argument("--rounds", type=int, default=7)
    options = read_options(parser)
    if options.quick:
        options.workloads, options.rounds = ["1"], 3
    options.workloads = options.workloads or (["128"] if options.device == "cuda" else ["16"])
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        rows = [
            row for variant in options.variants for work in options.workloads for row in compare(variant, work, options)
        ]
    except UnusableCheckoutError as error:
        parser.error(str(error))
    show(rows, COLUMNS)
    figures = {"official_revision": checkout_revision(options.checkout), "rows": rows}
    finish("against_official", options, figures, lambda path: _draw(rows, machine(options.device), path))


class Pair(NamedTuple):
    """Both models with the same weights, and the same crystals as each takes them."""

    theirs: nn.Module
    their_batch: Data
    ours: Crystalformer
    graphs: list[Data]
    graph_seconds: float
    batch: Data


def make_pair(variant: str, workload: str, options: argparse.Namespace) -> Pair:
    """Their fresh weights, translated into our model.

    Raises:
        UnusableCheckoutError: if their code cannot run here.
    """
    torch.manual_seed(0)
    crystals, device = crystals_of(workload), options.device
    settings = official_settings(options.checkout, variant, device, options.lattice_range)
    theirs = official_model(options.checkout, settings, device, options.reproducibility)
    enlarge_weights(theirs, embedding="input_embeddings.weight", encoding="pe_dist_proj")
    their_batch = official_batch(crystals, device)
    initialise(theirs, their_batch)
    weights = translatable_state(theirs)
    ours = Crystalformer.from_official_state_dict(weights, translatable_settings(settings))
    transform = ours.neighborhood(tol=options.tol, merge_tolerance=options.merge_tolerance)
    start = time.perf_counter()
    graphs = [transform(data.clone()) for data in crystals]
    seconds = time.perf_counter() - start
    return Pair(theirs, their_batch, ours.to(device), graphs, seconds, batch_of(graphs, lambda data: data, device))


def compare(variant: str, workload: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each of our backends and mode."""
    pair, device = make_pair(variant, workload, options), options.device
    expected = reference_results(pair.ours, pair.graphs)
    with torch.no_grad():
        their_output = pair.theirs.eval()(pair.their_batch)
    base = {"variant": variant, "workload": workload, "tol": options.tol, "lattice_range": options.lattice_range}
    base["merge_tolerance"] = options.merge_tolerance
    base["graph_ms"] = digits(1e3 * pair.graph_seconds, 3)
    base |= {**describe(pair.batch), "official_output_error": digits(relative_error(their_output, expected.output), 2)}
    functions = {f"official {mode}": make(pair.theirs, pair.theirs, pair.their_batch) for mode, make in MODES.items()}
    rows = []
    for backend in options.backend or timed_backends(device):
        path, model = FastPath(backend), copy.deepcopy(pair.ours)
        with switched_on(path):
            actual = model_results(model.eval(), model, pair.batch)
        agreement = model_agreement(actual, expected)
        row = {**base, "backend": backend, **agreement.summary()}
        row["difference"] = digits(relative_error(actual.output, their_output), 2)
        rows += [{**row, "mode": mode} for mode in MODES]
        if agreement.good:
            for mode, make in MODES.items():
                functions[f"{backend} {mode}"] = on_path(path, make(model, model, pair.batch))
    timings = measure(functions, device, options.rounds, budget=600.0)
    for row in rows:
        if f"{row['backend']} {row['mode']}" in timings:
            add_ratio(row, functions, timings, device)
    return rows


def add_ratio(
    row: dict[str, Any], functions: dict[str, Callable[[], Any]], timings: dict[str, Timing], device: str
) -> None:
    """Times, their ratio, and on CUDA both peaks of memory."""
    mine, official = f"{row['backend']} {row['mode']}", f"official {row['mode']}"
    row |= {"official_ms": timings[official].summary()["ms"], **timings[mine].summary()}
    row["ratio"] = digits(median_ratio(timings[official], timings[mine]), 3)
    if device == "cpu":
        row["official_processor_ms"] = digits(1e3 * timings[official].processor_median)
        row["processor_ms"] = digits(1e3 * timings[mine].processor_median)
        row["processor_ratio"] = digits(median_ratio(timings[official], timings[mine], processor=True), 3)
    else:
        row["official_peak_MiB"] = memory_of(functions[official], device)["peak_MiB"]
        row["peak_MiB"] = memory_of(functions[mine], device)["peak_MiB"]


def _draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    figure, axes = panels(1, f"Authors' code over ours, median ratio of interleaved rounds, {where}", width=7)
    groups = list(dict.fromkeys(_group(row) for row in rows))
    ratios = {(row["backend"], _group(row)): row.get("ratio") for row in rows}
    series = {
        backend: [ratios.get((backend, group)) for group in groups]
        for backend in dict.fromkeys(row["backend"] for row in rows)
    }
    dots(axes[0], groups, series, "times faster")
    save(figure, path)


def _group(row: dict[str, Any]) -> str:
    return f"{row['workload']}, {row['variant']}, {row['mode']}"


if __name__ == "__main__":
    main()
