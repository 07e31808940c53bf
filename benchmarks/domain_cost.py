"""What the attention of one crystal costs in each domain: the constants of ``domain="auto"``, measured anew.

Crystals of 1 to 152 atoms on one backend, each in a batch of so many copies that what is spent on a batch does not
count: time of forward and backward of the operation without value encoding, in real and in reciprocal space, at the
default tolerance. Two non-negative constants for each domain are fitted to the times per head and crystal, by least
squares of the relative error,

    real: a edges + b atoms^2            reciprocal: a atoms waves + b atoms^2 waves

and printed beside those that torch_geometric_crystal/ops/domain_cost.py has. "Chosen right" is the share of crystals
for which constants find the domain that was faster, "lost" what their wrong choices cost, of the time of the best ones.

    python benchmarks/domain_cost.py --threads 1
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention import R0, WIDTH, Inputs, passes
from command_line import digits, finish, option_parser, read_options, show
from figures import lines, panels, save
from provenance import machine
from scipy.optimize import nnls
from timing import measure
from torch_geometric.data import Data
from workloads import batch_of, large_cells, real_crystals

from torch_geometric_crystal.ops import choose_backend, gather_wave_vectors, group_edges
from torch_geometric_crystal.ops.domain_cost import EDGE_COST, EDGE_PAIR_COST, WAVE_COST, WAVE_PAIR_COST
from torch_geometric_crystal.transforms import InfiniteNeighborhood

HEADS = 8
RHO_MIN, RHO_MAX = 0.5, 4.0
ATOMS = 400
"""At least so many atoms are in a batch."""

CURRENT = {"real": (EDGE_COST, EDGE_PAIR_COST), "reciprocal": (WAVE_COST, WAVE_PAIR_COST)}


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--backend", help="blocked, cpp or triton (default: what this machine chooses)")
    parser.add_argument("--rounds", type=int, default=7)
    options = read_options(parser)
    crystals = real_crystals(6) if options.quick else real_crystals(16) + large_cells()
    options.rounds = 3 if options.quick else options.rounds
    options.backend = choose_backend(options.backend, torch.device(options.device), torch.float32)
    rows = [crystal_row(data, options) for data in crystals]
    show(rows)
    fits = [summary("domain_cost.py", CURRENT, rows)]
    fits.append(summary("fitted here", {domain: fit(domain, rows) for domain in CURRENT}, rows))
    show(fits)
    figures = {"backend": options.backend, "rows": rows, "fits": fits}
    finish("domain_cost", options, figures, lambda path: _draw(rows, machine(options.device), path))


def crystal_row(data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """Sizes of one crystal and the nanoseconds per head and copy of forward and backward in each domain."""
    copies = math.ceil((32 if options.quick else ATOMS) / data.num_nodes)
    transform = InfiniteNeighborhood(
        sigma_max=R0 / math.sqrt(RHO_MIN), reciprocal_sigma_min=R0 / math.sqrt(RHO_MAX), real=True
    )
    batch = batch_of([data] * copies, transform, options.device)
    inputs = {
        "real": make_inputs(batch, group_edges(batch.edge_index, batch.edge_dist, batch.num_nodes), 1.0),
        "reciprocal": make_inputs(
            batch,
            gather_wave_vectors(batch.pos, batch.cell, batch.wave_vector, batch.num_wave_vectors, batch.ptr),
            R0**2,
        ),
    }
    functions = {}
    for domain, of_domain in inputs.items():
        functions[f"{domain} forward"], functions[f"{domain} backward"] = passes(of_domain, options.backend)
    timings = measure(functions, options.device, options.rounds)
    sizes = {"atoms": batch.num_nodes, "edges": batch.num_edges, "waves": batch.wave_vector.size(0)}
    row: dict[str, Any] = {name: size // copies for name, size in sizes.items()}
    for domain in inputs:
        seconds = timings[f"{domain} forward"].median + timings[f"{domain} backward"].median
        row[f"{domain}_ns"] = digits(1e9 * seconds / HEADS / copies)
    return row


def make_inputs(batch: Data, places: Any, scale: float) -> Inputs:
    """Random tensors on one crystal; `scale` makes squared widths of the numbers rho."""
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(batch.num_nodes, 3, HEADS, WIDTH // HEADS, generator=generator)
    width = scale * (RHO_MIN + torch.rand(batch.num_nodes, HEADS, generator=generator))
    device = batch.pos.device
    return Inputs(projected.to(device).requires_grad_(), width.to(device).requires_grad_(), None, None, places)


def terms(domain: str, row: dict[str, Any]) -> tuple[int, int]:
    """What the constants of a domain multiply."""
    atoms = row["atoms"]
    return (row["edges"], atoms**2) if domain == "real" else (atoms * row["waves"], atoms**2 * row["waves"])


def fit(domain: str, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Non-negative constants, by least squares of the relative error."""
    matrix = np.array([[term / row[f"{domain}_ns"] for term in terms(domain, row)] for row in rows])
    first, second = nnls(matrix, np.ones(len(rows)))[0]
    return float(first), float(second)


def summary(name: str, constants: dict[str, tuple[float, float]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How well constants predict which domain is faster."""
    right, spent, best = 0, 0.0, 0.0
    for row in rows:
        measured = {domain: row[f"{domain}_ns"] for domain in constants}
        predicted = {domain: float(np.dot(pair, terms(domain, row))) for domain, pair in constants.items()}
        chosen = min(predicted, key=lambda domain: predicted[domain])
        right += measured[chosen] == min(measured.values())
        spent, best = spent + measured[chosen], best + min(measured.values())
    values = {
        f"{domain} {of}": digits(value)
        for domain, pair in constants.items()
        for of, value in zip("ab", pair, strict=True)
    }
    return {
        "constants": name,
        **values,
        "chosen right": digits(right / len(rows), 3),
        "lost": digits(spent / best - 1, 3),
    }


def _draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    figure, axes = panels(1, f"One crystal's attention, forward and backward, {where}", width=6)
    ordered = sorted(rows, key=lambda row: row["atoms"])
    series = {domain: [(row["atoms"], row[f"{domain}_ns"] / 1e3) for row in ordered] for domain in CURRENT}
    lines(axes[0], series, "atoms", "microseconds per head")
    save(figure, path)


if __name__ == "__main__":
    main()
