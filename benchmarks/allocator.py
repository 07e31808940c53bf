"""What training on the CPU gains where the C library keeps the memory that a step frees (benchmark/allocator.py).

Each model in turn, with the setting and without it, each time in a process of its own; the median over rounds.

    python benchmarks/allocator.py
    python benchmarks/allocator.py --models alignn cgcnn --rounds 5
    python benchmarks/allocator.py --quick
"""

import argparse
import json
import statistics
from typing import Any

import torch
from command_line import digits, finish, option_parser, read_options, show
from figures import dots, panels, save
from provenance import machine
from timing import in_own_process, measure, process_peak
from workloads import batch_of, real_crystals, training_step

from torch_geometric_crystal.benchmark.allocator import keep_freed_memory
from torch_geometric_crystal.nn.models import MODELS

BATCH_SIZES = {"alignn": 16, "cgcnn": 256, "crystalformer": 128}
"""Crystals in a batch: what is usual, for ALIGNN a quarter of it."""

SETTINGS = ("as it is", "kept")


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(BATCH_SIZES), default=list(BATCH_SIZES))
    parser.add_argument("--rounds", type=int, default=3, help="processes for each model and setting (default: 3)")
    parser.add_argument("--case", nargs=2, metavar=("MODEL", "SETTING"), help=argparse.SUPPRESS)
    options = read_options(parser)
    if options.case:
        print(json.dumps(case(*options.case, options.quick)))
        return
    if options.quick:
        options.models, options.rounds = ["cgcnn"], 1
    shared = ["--device", "cpu", *(["--threads", str(options.threads)] if options.threads else [])]
    shared += ["--quick"] if options.quick else []
    rows = []
    for model in options.models:
        found: dict[str, list[dict[str, Any]]] = {setting: [] for setting in SETTINGS}
        for _ in range(options.rounds):
            for setting in SETTINGS:
                found[setting].append(in_own_process(__file__, "--case", model, setting, *shared))
        rows += [row_of(model, setting, cases) for setting, cases in found.items()]
    show(rows)
    finish("allocator", options, {"rows": rows}, lambda path: _draw(rows, path))


def row_of(model: str, setting: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the processes of one model and setting."""
    medians = {name: digits(statistics.median(case[name] for case in cases)) for name in ("ms", "peak_MiB")}
    return {"model": model, "memory": setting, "atoms": cases[0]["atoms"], **medians, "rounds": len(cases)}


def case(model: str, setting: str, quick: bool) -> dict[str, Any]:
    """One training step's time in this process, and the most memory it took.

    Raises:
        RuntimeError: if the C library does not take the setting.
    """
    if setting == "kept" and not keep_freed_memory():
        raise RuntimeError("the C library of this machine has no such setting")
    torch.manual_seed(0)
    network = MODELS[model]()
    batch = batch_of(real_crystals(2 if quick else BATCH_SIZES[model]), network.neighborhood())
    timing = measure({"step": training_step(network, network, batch)}, "cpu", rounds=5)["step"]
    return {"atoms": batch.num_nodes, "ms": 1e3 * timing.median, "peak_MiB": process_peak()}


def _draw(rows: list[dict[str, Any]], path: Any) -> None:
    figure, axes = panels(1, f"Training step, memory kept or given back, {machine('cpu')}", width=7)
    models = list(dict.fromkeys(row["model"] for row in rows))
    times = {setting: [row["ms"] for row in rows if row["memory"] == setting] for setting in SETTINGS}
    dots(axes[0], models, times, "training step, ms")
    save(figure, path)


if __name__ == "__main__":
    main()
