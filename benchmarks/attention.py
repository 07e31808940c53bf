"""The attention operations alone: forward and backward, every backend, and the distance to the roofline.

Around one base case (a batch of real crystals, tol 1e-3, 8 heads of 16, K = 64, float32) one thing at a time is varied:
atoms, tolerance (that is, cutoff), heads at a width of 128, K, domain, and on CUDA the dtype of q, k and v. Output and
gradients of each backend are first compared with the float64 reference on the same inputs; a backend out of tolerance
gets no time. What the shares of the roofline count is written in roofline.py; on CUDA they are of the time in which
kernels keep the device busy, as the profiler sees it, and `ms` also holds what launching them costs.

    python benchmarks/attention.py
    python benchmarks/attention.py --sweeps crystals domain --backend blocked
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from agreement import Agreement, compare
from command_line import digits, finish, option_parser, read_options, show
from figures import lines, panels, save
from provenance import machine
from roofline import Rates, RealShape, Work, measured_rates, real_work, reciprocal_work
from timing import device_seconds, measure, profile
from torch import Tensor
from workloads import batch_of, real_crystals

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.ops import (
    GaussianBasis,
    Neighborhood,
    WaveVectors,
    available_backends,
    gather_wave_vectors,
    group_edges,
    infinite_attention,
    prepare_row_blocks,
    reciprocal_attention,
)

WIDTH = 128
R0, R0_RECIPROCAL = 1.4, 2.2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Case(NamedTuple):
    """One set of inputs."""

    crystals: int
    tol: float = 1e-3
    heads: int = 8
    basis: int = 64
    domain: str = "real"
    dtype: str = "float32"


SWEEPS: dict[str, dict[str, tuple]] = {
    "cpu": {
        "crystals": (4, 16, 32, 128),
        "tol": (1e-2, 1e-3, 1e-4),
        "heads": (2, 4, 8, 16),
        "basis": (0, 16, 64, 128),
        "domain": ("real", "reciprocal"),
    },
    "cuda": {
        "crystals": (16, 128, 256, 1024),
        "tol": (1e-2, 1e-3, 1e-4),
        "heads": (2, 4, 8, 16),
        "basis": (0, 16, 64, 128),
        "domain": ("real", "reciprocal"),
        "dtype": ("float32", "bfloat16", "float16"),
    },
}
COLUMNS = [
    "sweep", "domain", "dtype", "atoms", "edges", "waves", "heads", "basis", "backend", "pass", "output_error",
    "gradient_error", "ms", "busy_ms", "GB/s", "Gflop/s", "floor_ms", "bound", "roofline_share",
]  # fmt: skip

BASE = {"cpu": Case(32), "cuda": Case(128)}


class Inputs(NamedTuple):
    """Tensors of a case: q, k, v as rows of one projection, the width parameter, W^E, and where the atoms are."""

    projected: Tensor
    width: Tensor
    encoding: Tensor | None
    basis: GaussianBasis | None
    places: Neighborhood | WaveVectors

    def leaves(self) -> list[Tensor]:
        """What gradients are taken of."""
        return [tensor for tensor in (self.projected, self.width, self.encoding) if tensor is not None]


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--backend", nargs="+", help="backends to time (default: all that can run here)")
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS["cuda"]), help="what to vary (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    options = read_options(parser)
    base = Case(2) if options.quick else BASE[options.device]
    options.rounds = 3 if options.quick else options.rounds
    rates = measured_rates(options.device, options.quick)
    print(f"{machine(options.device)}: copy {rates.bytes / 1e9:.4g} GB/s, matmul {rates.flops / 1e12:.4g} Tflop/s, ")
    print(f"exp {rates.exps / 1e9:.4g} G/s (measured; the roofline of the shares below)")
    cases = sweep_cases(base, options)
    rows = [row for sweep, case in cases for row in case_rows(sweep, case, case == base, rates, options)]
    show(rows, COLUMNS)
    for row in rows:
        if "kernels" in row:
            print(f"\n{row['backend']}, {row['pass']}: what takes the time in the base case")
            show(row["kernels"])
    figures = {"rates": rates._asdict(), "base": base._asdict(), "rows": rows}
    finish("attention", options, figures, lambda path: _draw(rows, machine(options.device), path))


def sweep_cases(base: Case, options: argparse.Namespace) -> list[tuple[str, Case]]:
    """The base case, then each sweep's other cases, named by what is varied."""
    sweeps = {"basis": (0,), "domain": ("reciprocal",)} if options.quick else SWEEPS[options.device]
    cases = [("base", base)]
    for name, values in sweeps.items():
        if options.sweeps is None or name in options.sweeps:
            cases += [(name, base._replace(**{name: value})) for value in values if getattr(base, name) != value]
    return [(name, case._replace(basis=0) if case.domain == "reciprocal" else case) for name, case in cases]


def case_rows(sweep: str, case: Case, is_base: bool, rates: Rates, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each backend and pass. The reference is timed in the base case only."""
    inputs, work, counts = make_inputs(case, options.device)
    expected = evaluate(in_float64(inputs), "reference")
    backends = options.backend or available_backends(options.device, DTYPES[case.dtype])
    functions: dict[tuple[str, str], Callable[[], Any]] = {}
    rows = []
    for backend in backends:
        if backend == "reference" and not is_base:
            continue
        agreement = agreement_of(evaluate(inputs, backend), expected, case.dtype)
        for direction in ("forward", "backward"):
            row = {"sweep": sweep, **case._asdict(), **counts, "backend": backend, "pass": direction}
            rows.append({**row, **agreement.summary()})
        if agreement.good:
            forward, backward = passes(inputs, backend)
            functions |= {(backend, "forward"): forward, (backend, "backward"): backward}
    timings = measure(
        {f"{backend} {direction}": call for (backend, direction), call in functions.items()},
        options.device, options.rounds, budget=30.0,
    )  # fmt: skip
    for row in rows:
        key = (row["backend"], row["pass"])
        if key in functions:
            row |= timings[" ".join(key)].summary()
            busy = device_seconds(functions[key]) if options.device == "cuda" else timings[" ".join(key)].median
            row |= roofline_columns(work[row["pass"]], rates, busy, options.device)
            if is_base and row["backend"] != "reference":
                row["kernels"] = profile(functions[key], options.device)
    return rows


def make_inputs(case: Case, device: str) -> tuple[Inputs, dict[str, Work], dict[str, int]]:
    """Random tensors on real crystals, the work in them, and their sizes."""
    reciprocal = case.domain == "reciprocal"
    model = Crystalformer(num_basis=case.basis, domain=case.domain)
    batch = batch_of(real_crystals(case.crystals), model.neighborhood(tol=case.tol), device)
    atoms, head_dim, dtype = batch.num_nodes, WIDTH // case.heads, DTYPES[case.dtype]
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(atoms, 3, case.heads, head_dim, generator=generator).to(device, dtype).requires_grad_()
    rho = 0.5 + torch.rand(atoms, case.heads, generator=generator)
    width = (rho * R0_RECIPROCAL**2 if reciprocal else rho).to(device).requires_grad_()
    if reciprocal:
        waves = gather_wave_vectors(batch.pos, batch.cell, batch.wave_vector, batch.num_wave_vectors, batch.ptr)
        sizes = list(zip(batch.ptr.diff().tolist(), batch.num_wave_vectors.tolist(), strict=True))
        work = reciprocal_work(sizes, case.heads, head_dim, projected.element_size())
        return Inputs(projected, width, None, None, waves), work, {"atoms": atoms, "waves": waves.vector.size(0)}
    groups = group_edges(batch.edge_index, batch.edge_dist, atoms)
    encoding, basis = None, None
    if case.basis:
        encoding = torch.randn(case.heads, head_dim, case.basis, generator=generator).to(device).requires_grad_()
        basis = GaussianBasis(case.basis, 10 * R0 / case.basis)
    pairs, edges = groups.pair_source.numel(), batch.num_edges
    shape = RealShape(atoms, edges, pairs, case.heads, head_dim, case.basis, projected.element_size())
    counts = {"atoms": atoms, "edges": edges, "pairs": pairs}
    return Inputs(projected, width, encoding, basis, groups), real_work(shape), counts


def in_float64(inputs: Inputs) -> Inputs:
    """The same numbers in float64, as new leaves."""
    leaves = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in inputs[:3]]
    places = inputs.places
    double = [tensor.double() if tensor.is_floating_point() else tensor for tensor in places]
    return Inputs(*leaves, inputs.basis, type(places)(*double))


def attention(inputs: Inputs, backend: str, blocks: Any = None) -> tuple[Tensor, Tensor]:
    """The operation on these inputs: output and log-sum-exp."""
    query, key, value = inputs.projected.unbind(1)
    if isinstance(inputs.places, WaveVectors):
        return reciprocal_attention(query, key, value, inputs.width, inputs.places, backend=backend)
    return infinite_attention(
        query, key, value, inputs.width, inputs.places,
        r0=R0, value_encoding=inputs.encoding, basis=inputs.basis, blocks=blocks, backend=backend,
    )  # fmt: skip


def evaluate(inputs: Inputs, backend: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Output, and gradients of a fixed weighted sum of it."""
    out, lse = attention(inputs, backend)
    gradients = torch.autograd.grad([out, lse], inputs.leaves(), cotangents(out, lse))
    return (out.detach(), lse.detach()), gradients


def cotangents(out: Tensor, lse: Tensor) -> list[Tensor]:
    """Fixed random gradients of the outputs."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in (out, lse)]


def agreement_of(actual: tuple, expected: tuple, dtype: str) -> Agreement:
    """Errors of :func:`evaluate`; half-precision storage has the tolerance of bfloat16."""
    pairs = [list(zip(mine, theirs, strict=True)) for mine, theirs in zip(actual, expected, strict=True)]
    return compare(*pairs, precision="float32" if dtype == "float32" else "bfloat16")


def passes(inputs: Inputs, backend: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The forward pass without gradients, and the backward pass alone."""
    blocks = None
    if backend == "blocked" and isinstance(inputs.places, Neighborhood):
        blocks = prepare_row_blocks(inputs.places, inputs.basis)
    out, lse = attention(inputs, backend, blocks)
    gradients = cotangents(out, lse)

    def forward() -> None:
        with torch.no_grad():
            attention(inputs, backend, blocks)

    def backward() -> None:
        torch.autograd.grad([out, lse], inputs.leaves(), gradients, retain_graph=True)

    return forward, backward


def roofline_columns(work: Work, rates: Rates, seconds: float, device: str) -> dict[str, Any]:
    """Achieved rates, the least time, and how much of the time taken that is."""
    floor, bound = rates.floor(work)
    busy = {"busy_ms": digits(1e3 * seconds)} if device == "cuda" else {}
    return busy | {
        "GB/s": digits(work.bytes / seconds / 1e9, 3),
        "Gflop/s": digits(work.flops / seconds / 1e9, 3),
        "floor_ms": digits(1e3 * floor, 3),
        "bound": bound,
        "roofline_share": digits(floor / seconds, 3),
    }


def _draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    base = [row for row in rows if row["sweep"] == "base"]
    sweeps = [name for name in ("crystals", "tol", "heads", "basis") if any(row["sweep"] == name for row in rows)]
    figure, axes = panels(max(1, len(sweeps)), f"Attention alone, {where}")
    for panel, sweep in zip(axes, sweeps or ["crystals"], strict=True):
        x = {"crystals": "atoms", "tol": "edges"}.get(sweep, sweep)
        shown = [row for row in [*base, *(r for r in rows if r["sweep"] == sweep)] if "ms" in row and row.get(x)]
        series = {
            f"{backend} {direction}": sorted(
                (row[x], row["ms"]) for row in shown if (row["backend"], row["pass"]) == (backend, direction)
            )
            for backend, direction in dict.fromkeys((row["backend"], row["pass"]) for row in shown)
        }
        lines(panel, series, x, "ms")
    save(figure, path)


if __name__ == "__main__":
    main()
