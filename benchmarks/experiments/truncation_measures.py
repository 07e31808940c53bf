"""What a trained model says of crystals whose sums are cut in different ways."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from experiment import digits
from torch import Tensor
from torch_geometric.data import Data
from unit_cell_range import UnitCellRange

from torch_geometric_crystal.benchmark.batching import crystal_loader
from torch_geometric_crystal.transforms import Supercell

Graph = Callable[[Data], Data]
EDGES_IN_BATCH = 500_000


@torch.no_grad()
def outputs(model: Any, crystals: Sequence[Data], graph: Graph) -> tuple[Tensor, float]:
    """Predictions (n, T), and edges per atom, with the graphs that a transform makes of copies of the crystals."""
    model.eval()
    graphs = [graph(data.clone()) for data in crystals]
    loader = crystal_loader(graphs, EDGES_IN_BATCH, "edges")
    edges = sum(data.edge_index.size(1) for data in graphs) / sum(data.num_nodes for data in graphs)
    return torch.cat([model(batch) for batch in loader]), edges


def mean_error(prediction: Tensor, crystals: Sequence[Data]) -> float:
    """Mean absolute error."""
    return float((prediction - torch.cat([data.y for data in crystals])).abs().mean())


def at_cutoffs(model: Any, crystals: Sequence[Data], cutoffs: Sequence[float], exact: float) -> dict[str, Any]:
    """Errors with each cutoff in place of the one in training, and with the converged sum."""
    columns = {}
    for cutoff in cutoffs:
        prediction, _ = outputs(model, crystals, model.neighborhood(cutoff=cutoff))
        columns[f"mae_at_{cutoff:g}"] = digits(mean_error(prediction, crystals), 5)
    prediction, _ = outputs(model, crystals, model.neighborhood(tol=exact))
    return columns | {"mae_at_exact": digits(mean_error(prediction, crystals), 5)}


def at_tolerances(model: Any, crystals: Sequence[Data], tolerances: Sequence[float], exact: float) -> list[dict]:
    """For each tolerance edges per atom, error, and the outputs' change against the converged sum."""
    reference, edges = outputs(model, crystals, model.neighborhood(tol=exact))
    rows = [{"tol": exact, "edges": digits(edges), "mae": digits(mean_error(reference, crystals), 6)}]
    for tol in tolerances:
        prediction, edges = outputs(model, crystals, model.neighborhood(tol=tol))
        rows.append({"tol": tol, "edges": digits(edges), "mae": digits(mean_error(prediction, crystals), 6)})
        rows[-1] |= change(prediction, reference)
    return rows


def at_unit_cells(
    model: Any, crystals: Sequence[Data], unit_cells: int, skews: Sequence[int], exact: float
) -> list[dict[str, Any]]:
    """For each skew of the cell, the change of the outputs by the fixed range, also of each crystal with its cell."""
    reference, _ = outputs(model, crystals, model.neighborhood(tol=exact))
    rows = []
    for skew in skews:
        skewed = [skewed_cell(data, skew) for data in crystals]
        prediction, edges = outputs(model, skewed, UnitCellRange(unit_cells))
        row: dict[str, Any] = {"skew": skew, "edges": digits(edges), "mae": digits(mean_error(prediction, crystals), 6)}
        row |= change(prediction, reference)
        row["height"] = [digits(smallest_height(data), 3) for data in skewed]
        row["changes"] = [digits(x, 3) for x in (prediction - reference).abs().mean(1).tolist()]
        rows.append(row)
    return rows


def change(prediction: Tensor, reference: Tensor) -> dict[str, Any]:
    """Mean and largest change of the outputs."""
    moved = (prediction - reference).abs()
    return {"mean_change": digits(float(moved.mean()), 3), "largest_change": digits(float(moved.max()), 3)}


def skewed_cell(data: Data, skew: int) -> Data:
    """The same crystal in the cell (a, b + skew a, c + skew b): as many atoms, the same volume."""
    return Supercell([[1, 0, 0], [skew, 1, 0], [0, skew, 1]])(data.clone()) if skew else data.clone()


def smallest_height(data: Data) -> float:
    """Smallest distance of two opposite faces of the cell, A."""
    return float(1 / torch.linalg.inv(data.cell[0].double()).norm(dim=0).max())
