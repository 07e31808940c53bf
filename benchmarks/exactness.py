"""How exact Crystalformer is here: parity with the authors' code, invariance on real crystals, certified truncation.

python benchmarks/exactness.py
python benchmarks/exactness.py --checkpoint runs/flla_2015/best.ckpt    # also the logits of a trained model
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from provenance import record
from torch_geometric.data import Batch, Data
from workloads import real_crystals

from torch_geometric_crystal.benchmark import load_model
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.crystal_graph import gather_crystal_graph
from torch_geometric_crystal.nn.models.official_checkpoint import translate_official
from torch_geometric_crystal.testing import CHANGES, crystal_outputs, supercell

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "parity"
NAMES = ("real_beta", "real_simple", "multihead", "multihead_beta", "real_reci")
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)

NOTHING = 1e-8
"""A weight that does not show in float32, even a hundred times, beside that of the atom itself, which is 1."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=100, help="real crystals for invariance and truncation")
    parser.add_argument("--checkpoint", type=Path, help="a trained Crystalformer, to measure its logits and widths")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results)")
    arguments = parser.parse_args()
    crystals = [data for data in real_crystals(4 * arguments.crystals) if data.num_nodes <= 16][: arguments.crystals]
    figures = {
        "parity": {name: parity(name) for name in NAMES},
        "invariance_float32": invariance(crystals),
        "truncation": truncation(crystals),
    }
    if arguments.checkpoint:
        trained = load_model(arguments.checkpoint)
        figures["trained_model"] = logits(trained, crystals)
        figures["trained_allowances"] = allowances(trained, crystals)
    print(json.dumps(figures, indent=1))
    print(record("exactness", figures, arguments.output))


def parity(name: str) -> dict[str, float]:
    """Largest errors relative to the largest official value: outputs and gradients in float64, outputs in float32."""
    arrays = dict(np.load(FIXTURES / f"{name}.npz"))
    for extra in FIXTURES.glob(f"{name}_grad*.npz"):
        arrays |= dict(np.load(extra))
    config, weights = json.loads(str(arrays["config"])), _tensors(arrays, "w/")
    model = Crystalformer.from_official_state_dict(weights, config).double()
    batch = _fixture_batch(arrays, model)
    official = torch.from_numpy(arrays["out"])
    out = model(batch)
    out.sum().backward()
    gradients = {key: torch.zeros_like(value).double() for key, value in weights.items()}
    gradients |= {key: value.double() for key, value in _tensors(arrays, "g/").items()}
    _, expected = translate_official(gradients, config)
    single = Crystalformer.from_official_state_dict(weights, config)
    return {
        "output_float64": _relative(out, official),
        "gradients_float64": max(_relative(p.grad, expected[key]) for key, p in model.named_parameters()),
        "output_float32": _relative(single(batch), official),
    }


def invariance(crystals: list[Data]) -> dict[str, float]:
    """Largest change of an output, relative to the largest output, under each other description of the crystals."""
    model = _fixture_model("real_beta")
    expected = crystal_outputs(model, [_single(data) for data in crystals])
    errors = {
        name: _relative(crystal_outputs(model, [_single(change(_double(data))) for data in crystals]), expected)
        for name, change in ({**CHANGES, "supercell": lambda data: supercell(data, (2, 1, 2))}).items()
    }
    alone = torch.cat([crystal_outputs(model, [_single(data)]) for data in crystals])
    return {**errors, "alone or in a batch": _relative(alone, expected)}


def truncation(crystals: list[Data]) -> list[dict[str, float]]:
    """Per tolerance: cutoff, edges, true error of the output against the converged sum, what the model certifies."""
    model = _fixture_model("real_beta").double()
    converged, far = _outputs(model, crystals, 1e-14)
    rows = []
    for tol in TOLERANCES:
        out, batch = _outputs(model, crystals, tol)
        smallest = torch.tensor([smallest_cutoff(data, tol) for data in far.to_data_list()])
        rows.append(
            {
                "tol": tol,
                "median_cutoff": round(float(batch.edge_cutoff.median()), 2),
                "median_cutoff_over_smallest": round(float((batch.edge_cutoff / smallest).median()), 3),
                "edges_per_atom": round(batch.num_edges / batch.num_nodes, 1),
                "output_error": _relative(out, converged),
                "largest_a_posteriori_share": float(model.truncation_report(batch).max()),
            }
        )
    return rows


def smallest_cutoff(data: Data, tol: float) -> float:
    """Smallest radius at which no row drops more than `tol`, at the widest Gaussian and equal logits; edges far out."""
    order = data.edge_dist.argsort()
    target, dist = data.edge_index[1][order], data.edge_dist[order]
    weight = (-(dist**2) * 0.5 / (2 * 1.4**2)).exp()
    rows = torch.nn.functional.one_hot(target, data.num_nodes) * weight.unsqueeze(1)
    beyond = rows.flip(0).cumsum(0).flip(0) / rows.sum(0)  # share at this distance and beyond, (E, N)
    return float(dist[(beyond > tol).any(1).nonzero().max()])


@torch.no_grad()
def logits(model: Crystalformer, crystals: list[Data]) -> dict[str, list[float]]:
    """Quantiles of the spread of q.k/sqrt(d) in the rows, of the widths sigma, and of the certified shares.

    Also the share of the edges whose Gaussian is not below `NOTHING`, for a head, and for the widest head of its row:
    what kernels that stop head by head, or row by row, would have left to do.
    """
    transform = model.neighborhood()
    batch = Batch.from_data_list([transform(data.clone()) for data in crystals])
    graph = gather_crystal_graph(batch, torch.float32, True, False, None)
    target = torch.arange(batch.num_nodes).repeat_interleave(graph.neighborhood.row_pair_ptr.diff())
    x = model.embedding(batch.z - 1)
    figures: dict[str, list[float]] = {"quantiles": [0.5, 0.9, 0.99, 1.0]}
    for index, block in enumerate(model.blocks):
        x, rows = block(x, graph)
        logit = (rows.query[target] * rows.key[graph.neighborhood.pair_source]).sum(-1) * rows.scale
        where = target.unsqueeze(1).expand_as(logit)
        largest = torch.zeros_like(rows.rho).scatter_reduce(0, where, logit, "amax", include_self=False)
        smallest = torch.zeros_like(rows.rho).scatter_reduce(0, where, logit, "amin", include_self=False)
        figures[f"spread_block_{index}"] = _quantiles(largest - smallest, figures["quantiles"])
        sigma = 1.4 / rows.rho.sqrt()
        figures[f"sigma_block_{index}"] = _quantiles(sigma, figures["quantiles"])
        reach = sigma * math.sqrt(-2.0 * math.log(NOTHING))
        row, dist = graph.neighborhood.target(), graph.neighborhood.dist.unsqueeze(1)
        figures[f"edges_of_head_and_row_block_{index}"] = [
            round(float((dist <= radius[row]).double().mean()), 3) for radius in (reach, reach.amax(1, keepdim=True))
        ]
    figures["a_posteriori_share"] = _quantiles(model.truncation_report(batch), figures["quantiles"])
    figures["a_priori_share"] = _quantiles(batch.truncation_bound, figures["quantiles"])
    return figures


@torch.no_grad()
def allowances(model: Crystalformer, crystals: list[Data]) -> list[dict[str, float]]:
    """What the allowance for the spread buys on a trained model: how many crystals are certified within tol."""
    converged, _ = _outputs(model, crystals, 1e-8, single=True)
    rows = []
    for tol in (1e-2, 1e-3, 1e-4):
        for spread in (0.0, 1.0, 1.5, 2.0, 3.0):
            out, batch = _outputs(model, crystals, tol, single=True, spread=spread)
            report = model.truncation_report(batch)
            rows.append(
                {
                    "tol": tol,
                    "spread": spread,
                    "edges_per_atom": round(batch.num_edges / batch.num_nodes, 1),
                    "certified": round(float((report <= tol).double().mean()), 3),
                    "largest_share_over_tol": float(f"{float(report.max()) / tol:.3g}"),
                    "output_error_over_std": float((out - converged).abs().max() / model.normalization.std.max()),
                }
            )
    return rows


def _outputs(
    model: Crystalformer, crystals: list[Data], tol: float, single: bool = False, **options: float
) -> tuple[torch.Tensor, Data]:
    transform = model.neighborhood(tol=tol, **options)
    batch = Batch.from_data_list([transform((_single if single else _double)(data)) for data in crystals])
    with torch.no_grad():
        return model(batch), batch


def _fixture_batch(arrays: dict[str, np.ndarray], model: Crystalformer) -> Data:
    transform = model.neighborhood(tol=1e-12)
    crystals = [
        Data(
            z=torch.from_numpy(arrays["Z"][first:last]).long(),
            pos=torch.from_numpy(arrays["pos"][first:last]),
            cell=torch.from_numpy(arrays["cell"][index : index + 1]),
            pbc=torch.ones(1, 3, dtype=torch.bool),
        )
        for index, (first, last) in enumerate(zip(arrays["ptr"][:-1], arrays["ptr"][1:], strict=True))
    ]
    return Batch.from_data_list([transform(data) for data in crystals])


def _fixture_model(name: str) -> Crystalformer:
    arrays = np.load(FIXTURES / f"{name}.npz")
    return Crystalformer.from_official_state_dict(_tensors(dict(arrays), "w/"), json.loads(str(arrays["config"])))


def _tensors(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith(prefix)}


def _double(data: Data) -> Data:
    data = data.clone()
    data.pos, data.cell = data.pos.double(), data.cell.double()
    return data


def _single(data: Data) -> Data:
    data = data.clone()
    data.pos, data.cell = data.pos.float(), data.cell.float()
    return data


def _relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.abs().max().clamp(min=1e-300)
    return float((actual.detach().double() - expected.double()).abs().max() / scale)


def _quantiles(values: torch.Tensor, levels: list[float]) -> list[float]:
    return [float(f"{value:.3g}") for value in torch.quantile(values.double().flatten(), torch.tensor(levels).double())]


if __name__ == "__main__":
    main()
