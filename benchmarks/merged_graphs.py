"""Crystalformer and ALIGNN on graphs whose like atoms (edges, angles) are merged, against the whole graphs.

Crystals spread evenly over each bundled data set: how many atoms, edges and angles are kept, how long the graphs take,
a training step and inference of the published model on both graphs in turn, and how far outputs and gradients in
training mode, in float64, differ between the two (more than 1e-4 is refused).

    python benchmarks/merged_graphs.py
    python benchmarks/merged_graphs.py --models alignn --datasets matbench_phonons --number 64 --device cuda
"""

import argparse
import copy
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from agreement import compare, gradients_of, output_weights
from command_line import digits, finish, option_parser, read_options, show
from figures import dots, panels, save
from provenance import machine
from timing import measure, median_ratio
from torch import nn
from torch_geometric.data import Batch, Data
from workloads import inference, training_step

from torch_geometric_crystal.benchmark.allocator import keep_freed_memory
from torch_geometric_crystal.benchmark.sources import bundled_datasets
from torch_geometric_crystal.nn.models import MODELS
from torch_geometric_crystal.transforms.line_graph import LINE_GRAPH_INDEX, LineGraph

TOLERANCE = 1e-4
"""A, and of cosines: what is taken for the same."""

LARGEST_DIFFERENCE = 1e-4
"""Of outputs and gradients, relative."""

SMALL: dict[str, dict[str, Any]] = {
    "crystalformer": {"channels": 16, "num_blocks": 1, "num_heads": 2, "num_basis": 8},
    "alignn": {"channels": 16, "embedding_channels": 8, "num_alignn_layers": 1, "num_gcn_layers": 1},
}


def main() -> None:
    """Run from the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--datasets", nargs="+", choices=list(bundled_datasets()), default=list(bundled_datasets()))
    parser.add_argument("--models", nargs="+", choices=list(SMALL), default=list(SMALL))
    parser.add_argument("--number", type=int, default=32, help="crystals of each data set (default: 32)")
    parser.add_argument("--rounds", type=int, default=3)
    options = read_options(parser)
    if options.quick:
        options.datasets, options.number = options.datasets[:1], 4
    keep_freed_memory()
    rows = []
    for name in options.datasets:
        for model in options.models:
            rows.append(row(model, name, options))
            show(rows[-1:])
    show(rows)
    finish("merged_graphs", options, {"tolerance": TOLERANCE, "rows": rows}, partial(_draw, rows, options.device))


def row(model_name: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Sizes, times and differences on crystals of one data set."""
    torch.manual_seed(0)
    model = MODELS[model_name](**SMALL[model_name] if options.quick else {}).to(options.device)
    crystals = spread(name, options.number)
    graphs, seconds = {}, {}
    for kind, tolerance in (("whole", None), ("merged", TOLERANCE)):
        transform, start = model.neighborhood(merge_tolerance=tolerance), time.perf_counter()
        graphs[kind] = [transform(data.clone()) for data in crystals]
        seconds[kind] = (time.perf_counter() - start) / len(crystals)
    batches = {kind: Batch.from_data_list(found).to(options.device) for kind, found in graphs.items()}
    agreement = compare_training(model, batches)
    if max(agreement.output, agreement.gradient) > LARGEST_DIFFERENCE:
        raise RuntimeError(f"{name}: merged graphs give other results than whole ones: {agreement}")
    steps = measure(
        {kind: training_step(model, model, b) for kind, b in batches.items()}, options.device, options.rounds
    )
    runs = measure({kind: inference(model, model, b) for kind, b in batches.items()}, options.device, options.rounds)
    whole, merged = (sizes(found) for found in graphs.values())
    found: dict[str, Any] = {"model": model_name, "data": name, "crystals": len(crystals), "atoms": whole["atoms"]}
    found |= {f"{what}_ratio": digits(number / merged[what], 3) for what, number in whole.items()}
    for kind in graphs:
        found[f"step_ms_{kind}"] = digits(1e3 * steps[kind].median)
        found[f"inference_ms_{kind}"] = digits(1e3 * runs[kind].median)
        found[f"graph_ms_{kind}"] = digits(1e3 * seconds[kind], 3)
    found["step_ratio"] = digits(median_ratio(steps["whole"], steps["merged"]), 3)
    found["inference_ratio"] = digits(median_ratio(runs["whole"], runs["merged"]), 3)
    return found | {
        "output_difference": digits(agreement.output, 2),
        "gradient_difference": digits(agreement.gradient, 2),
    }


def spread(name: str, number: int) -> list[Data]:
    """Crystals at equal distances over a bundled data set."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = bundled_datasets()[name](root=folder, log=False)
        return [dataset[index * len(dataset) // number].clone() for index in range(number)]


def sizes(crystals: list[Data]) -> dict[str, int]:
    """Atoms and edges, and angles of graphs that have no edges of length 0, which have no direction."""
    found = {
        "atoms": sum(data.num_nodes for data in crystals),
        "edges": sum(data.num_edges for data in crystals),
    }
    if all(bool((data.edge_dist > 0.0).all()) for data in crystals):
        angles = [data if LINE_GRAPH_INDEX in data else LineGraph()(data.clone()) for data in crystals]
        found["angles"] = sum(data[LINE_GRAPH_INDEX].size(1) for data in angles)
    return found


def compare_training(model: nn.Module, batches: dict[str, Data]) -> Any:
    """Difference of outputs and of gradients in training mode, batch norm included, in float64."""
    results = []
    for batch in batches.values():
        judge = copy.deepcopy(model).double().train()
        output = judge(batch.clone().apply(lambda value: value.double() if value.is_floating_point() else value))
        (output.squeeze(-1) * output_weights(output.size(0)).to(output)).sum().backward()
        results.append((output.detach(), torch.cat([grad.flatten() for grad in gradients_of(judge).values()])))
    (output, gradient), (merged_output, merged_gradient) = results
    return compare([(merged_output, output)], [(merged_gradient, gradient)], "float64")


def _draw(rows: list[dict[str, Any]], device: str, path: Path) -> None:
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = panels(len(models), f"Whole graphs against merged ones, {machine(device)}", width=5.5)
    for panel, model in zip(axes, models, strict=True):
        own = [row for row in rows if row["model"] == model]
        series = {
            what: [row.get(f"{what}_ratio") for row in own]
            for what in ("edges", "angles", "step")
            if f"{what}_ratio" in own[0]
        }
        dots(panel, [row["data"] for row in own], series, "whole / merged")
        panel.set_title(model, fontsize=9)
    save(figure, path)


if __name__ == "__main__":
    main()
