"""A posteriori bounds on what the cutoff dropped, from the widths and logits that a model really has."""

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.conv.periodic_infinite_attention import RowStatistics
from torch_geometric_crystal.ops.truncation import posterior_truncation_bound


def row_truncation_bound(statistics: RowStatistics, data: Data, batch: Tensor, r0: float, rho_min: float) -> Tensor:
    r"""Certified dropped share of each row and head, shape (N, H), float64.

    The largest logit of a row over all atoms j of its crystal is bounded by the mean and the spread of the keys,

    .. math:: \max_j \mathbf{q}_i \cdot \mathbf{k}_j \le \mathbf{q}_i \cdot \bar{\mathbf{k}} +
        |\mathbf{q}_i| \max_j |\mathbf{k}_j - \bar{\mathbf{k}}|,

    in O(N), with the crystal's mean key (Cauchy and Schwarz).

    Raises:
        ValueError: if `data` lacks `log_tail` or `edge_cutoff`.
    """
    check_argument(
        "log_tail" in data and "edge_cutoff" in data,
        "data",
        "log_tail and edge_cutoff, which InfiniteNeighborhood writes",
        f"fields {sorted(data.keys())}",
    )
    query, key = statistics.query.double(), statistics.key.double()
    num_crystals = data.edge_cutoff.numel()
    mean_key = scatter(key, batch, dim=0, dim_size=num_crystals, reduce="mean")[batch]
    key_radius = scatter((key - mean_key).norm(dim=-1), batch, dim=0, dim_size=num_crystals, reduce="max")[batch]
    max_logit = ((query * mean_key).sum(-1) + query.norm(dim=-1) * key_radius) * statistics.scale
    rho, lse = statistics.rho.double(), statistics.lse.double()
    return posterior_truncation_bound(
        data.log_tail.double(), data.edge_cutoff.double()[batch], rho, r0, rho_min, max_logit, lse
    )


def crystal_truncation_bound(rows: Tensor, batch: Tensor, num_crystals: int) -> Tensor:
    """The largest share of each crystal's rows and heads: (N, H) to (B,)."""
    return scatter(rows.amax(1), batch, dim=0, dim_size=num_crystals, reduce="max")
