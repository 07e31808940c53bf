"""What infinite attention costs beside models that a user knows: training step, inference, memory, parameters, edges.

Crystalformer (with and without value position encoding), PyG's SchNet and a stack of PyG's TransformerConv with the
same sizes run on the same edges, all images within the certified cutoff; CGCNN and ALIGNN of this package on theirs, to
the 12 nearest neighbours. Each model must first agree with itself in float64 (ours on the reference backend).

    python benchmarks/against_peers.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from agreement import model_agreement, model_results, reference_results
from command_line import digits, finish, option_parser, read_options, show
from figures import dots, panels, save
from peers import PEERS, Peer, make_peer
from provenance import machine
from timing import in_own_process, measure, memory_of
from workloads import batch_of, crystals_of, inference, real_crystals, training_step

MODES = {"train": training_step, "infer": inference}
COLUMNS = [
    "model", "workload", "parameters", "atoms", "edges_per_atom", "output_error", "gradient_error", "train_ms",
    "train_us_per_atom", "infer_ms", "infer_us_per_atom", "train_peak_MiB", "infer_peak_MiB",
]  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--workload", help="a number of crystals, or large_cells (default: 32; CUDA: 128)")
    parser.add_argument("--models", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--tol", type=float, default=1e-3, help="tolerance of the infinite graphs (default: 1e-3)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-memory", action="store_true", help="skip peak memory (a process for each model)")
    parser.add_argument("--case", nargs=2, metavar=("MODEL", "MODE"), help=argparse.SUPPRESS)
    options = read_options(parser)
    options.workload = options.workload or ("1" if options.quick else "128" if options.device == "cuda" else "32")
    options.rounds = 3 if options.quick else options.rounds
    if options.case:
        print(json.dumps(memory_case(*options.case, options)))
        return
    rows = compare(options)
    if not (options.no_memory or options.quick):
        add_memory(rows, options)
    show(rows, COLUMNS)
    missing = [name for name in options.models if name not in {row["model"] for row in rows}]
    if missing:
        print(f"not in this version of the package: {', '.join(missing)}")
    finish("against_peers", options, {"rows": rows}, lambda path: _draw(rows, machine(options.device), path))


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each model, all timed in turn."""
    rows, functions = [], {}
    for name in options.models:
        peer = prepared(name, options)
        if peer is None:
            continue
        graphs = [peer.transform(data) for data in crystals_of(options.workload)]
        batch = batch_of(graphs, lambda data: data, options.device)
        agreement = model_agreement(
            model_results(peer.model.eval(), peer.model, batch), reference_results(peer.model, graphs)
        )
        edges = batch.num_edges / batch.num_nodes
        size = sum(parameter.numel() for parameter in peer.model.parameters())
        row = {"model": name, "workload": options.workload, "parameters": size, "atoms": batch.num_nodes}
        rows.append({**row, "edges_per_atom": digits(edges, 3), **agreement.summary()})
        if agreement.good:
            for mode, make in MODES.items():
                functions[f"{name} {mode}"] = make(peer.model, peer.model, batch)
    timings = measure(functions, options.device, options.rounds)
    for row in rows:
        for mode in MODES:
            timing = timings.get(f"{row['model']} {mode}")
            if timing is not None:
                row |= {f"{mode}_{key}": value for key, value in timing.summary().items()}
                row[f"{mode}_us_per_atom"] = digits(1e6 * timing.median / row["atoms"], 3)
    return rows


def prepared(name: str, options: argparse.Namespace) -> Peer | None:
    """A peer on its device that has seen a first batch in training, for statistics that are taken from it."""
    peer = make_peer(name, options.tol)
    if peer is None:
        return None
    with torch.no_grad():
        peer.model.train()(batch_of(real_crystals(2), peer.transform))
    return Peer(peer.model.to(options.device), peer.transform)


def add_memory(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Peak memory of a step of each model, in a process of its own."""
    shared = ["--device", options.device, "--tol", str(options.tol), "--workload", options.workload]
    if options.threads is not None:
        shared += ["--threads", str(options.threads)]
    for row in rows:
        for mode in MODES:
            found = in_own_process(__file__, "--case", row["model"], mode, *shared)
            row |= {f"{mode}_{key}": value for key, value in found.items()}


def memory_case(name: str, mode: str, options: argparse.Namespace) -> dict[str, int]:
    """Memory of this process before and at the peak of a first step."""
    peer = prepared(name, options)
    batch = batch_of(crystals_of(options.workload), peer.transform, options.device)
    return memory_of(MODES[mode](peer.model, peer.model, batch), options.device)


def _draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    figure, axes = panels(1, f"{rows[0]['workload']} crystals, {where}" if rows else where, width=7)
    values = {
        label: [row.get(f"{mode}_us_per_atom") for row in rows]
        for label, mode in (("training step", "train"), ("inference", "infer"))
    }
    dots(axes[0], [row["model"] for row in rows], values, "microseconds per atom")
    save(figure, path)


if __name__ == "__main__":
    main()
