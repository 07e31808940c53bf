"""Fields of a crystal's graph: reading the crystal, storing edges, and removing what has gone stale."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from torch_geometric_crystal.data.validation import validate_crystal
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray

REAL_FIELDS = (
    "edge_index",
    "edge_shift",
    "edge_dist",
    "edge_cutoff",
    "edge_attr",
    "edge_weight",
    "truncation_bound",
    "log_tail",
    "line_graph_index",
    "line_graph_cosine",
)
RECIPROCAL_FIELDS = ("wave_vector", "num_wave_vectors", "wave_cutoff", "wave_bound")


def remove_fields(data: Data, names: tuple[str, ...] = REAL_FIELDS + RECIPROCAL_FIELDS) -> Data:
    """Delete from `data` the fields `names` that it has; by default everything that belongs to a graph."""
    for name in names:
        if name in data:
            delattr(data, name)
    return data


def structure_name(data: Data) -> object:
    """Return the name by which errors call this crystal."""
    return data.structure_id if "structure_id" in data else "unnamed"


def crystal_arrays(data: Data) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Check one crystal and return positions (N, 3), cell (3, 3), in float64, and periodic directions (3,).

    A crystal without the field `pbc` is periodic in all directions.

    Raises:
        InvalidStructureError: on a crystal that :func:`~torch_geometric_crystal.data.validate_crystal` refuses.
    """
    validate_crystal(data, check_overlap=False)
    pos = data.pos.detach().cpu().double().numpy()
    cell = data.cell.detach().cpu().double().numpy()[0]
    pbc = data.pbc.cpu().numpy()[0] if data.get("pbc") is not None else np.ones(3, dtype=bool)
    return pos, cell, pbc


def store_graph(
    data: Data, target: IntArray, source: IntArray, shift: IntArray, dist: FloatArray, cutoff: float
) -> Data:
    """Store edges, sorted by target, then by stored distance, source and image, in place of those that `data` had."""
    edge_dist = torch.from_numpy(dist).to(data.pos.dtype)
    order = np.lexsort((*shift.T[::-1], source, edge_dist.numpy(), target))
    device = data.pos.device
    remove_fields(data, REAL_FIELDS)
    data.edge_index = torch.from_numpy(np.stack([source[order], target[order]])).to(device)
    data.edge_shift = torch.from_numpy(shift[order]).to(device, torch.int32)
    data.edge_dist = edge_dist[torch.from_numpy(order)].to(device)
    data.edge_cutoff = torch.tensor([cutoff], dtype=torch.float64, device=device)
    return data
