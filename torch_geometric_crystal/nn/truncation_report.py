"""A posteriori bounds on what the cutoff dropped, from the widths and logits that a model really has."""

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.conv.periodic_infinite_attention import RowStatistics
from torch_geometric_crystal.ops.truncation import posterior_truncation_bound

ROWS_AT_ONCE = 512
"""Rows of a large crystal whose logits are in memory together."""


def row_truncation_bound(statistics: RowStatistics, data: Data, batch: Tensor, r0: float, rho_min: float) -> Tensor:
    """Certified dropped share of each row and head, shape (N, H), float64.

    Args:
        statistics: what the layer has on this batch.
        data: the batch, with the certificate of :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood`.
        batch: crystal of each atom, sorted, shape (N,).
        r0: length scale of the layer, A.
        rho_min: the layer's lower bound of rho.

    Raises:
        ValueError: if `data` lacks `log_tail` or `edge_cutoff`.
    """
    check_argument(
        "log_tail" in data and "edge_cutoff" in data,
        "data",
        "log_tail and edge_cutoff, which InfiniteNeighborhood writes",
        sorted(data.keys()),
    )
    query, key = statistics.query.double(), statistics.key.double()
    max_logit = largest_logits(query, key, batch, data.edge_cutoff.numel()) * statistics.scale
    rho, lse = statistics.rho.double(), statistics.lse.double()
    return posterior_truncation_bound(
        data.log_tail.double(), data.edge_cutoff.double()[batch], rho, r0, rho_min, max_logit, lse
    )


def largest_logits(query: Tensor, key: Tensor, batch: Tensor, num_crystals: int) -> Tensor:
    """Largest q.k of each row over all atoms of its crystal, within the cutoff or not; (N, H, d) twice to (N, H)."""
    largest = query.new_empty(query.shape[:2])
    first = 0
    for count in torch.bincount(batch, minlength=num_crystals).tolist():
        keys = key[first : first + count].permute(1, 2, 0)  # (H, d, n)
        for start in range(first, first + count, ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, first + count))
            largest[rows] = (query[rows].transpose(0, 1) @ keys).amax(-1).T
        first += count
    return largest


def crystal_truncation_bound(rows: Tensor, batch: Tensor, num_crystals: int) -> Tensor:
    """The largest share of each crystal's rows and heads: (N, H) to (B,)."""
    return scatter(rows.amax(1), batch, dim=0, dim_size=num_crystals, reduce="max")
