"""The definition of infinite attention, written plainly in float64: the judge of every other backend.

Nothing here is optimised; it is differentiable as often as asked, by autograd.
"""

import torch
from torch import Tensor

from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import GaussianBasis


def infinite_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    neighborhood: Neighborhood,
    r0: float,
    scale: float,
    value_encoding: Tensor | None = None,
    basis: GaussianBasis | None = None,
) -> tuple[Tensor, Tensor]:
    """Arguments as in :func:`~torch_geometric_crystal.ops.infinite_attention`, without checks.

    Returns:
        The output (N, H, d) and the log-sum-exp of each row's logits (N, H), in the dtype of `query`.
    """
    dtype = query.dtype
    query, key, value, rho = query.double(), key.double(), value.double(), rho.double()
    target, source, dist = neighborhood.target(), neighborhood.source, neighborhood.dist.double()

    logit = (query[target] * key[source]).sum(-1) * scale  # (E, H)
    logit = logit - rho[target] * (dist.square() / (2 * r0**2)).unsqueeze(-1)
    largest = _largest_per_row(logit.detach(), target, neighborhood.num_rows)
    weight = (logit - largest[target]).exp()
    total = torch.zeros_like(rho).index_add(0, target, weight)
    weight = weight / total[target]

    values = value[source]  # (E, H, d)
    if value_encoding is not None and basis is not None:
        values = values + torch.einsum("hdk,ek->ehd", value_encoding.double(), basis(dist))
    out = torch.zeros_like(value).index_add(0, target, weight.unsqueeze(-1) * values)
    return out.to(dtype), (total.log() + largest).to(dtype)


def _largest_per_row(logit: Tensor, target: Tensor, num_rows: int) -> Tensor:
    """Row maxima, zero for a row without edges; shape (N, H)."""
    index = target.unsqueeze(-1).expand_as(logit)
    return logit.new_zeros(num_rows, logit.size(1)).scatter_reduce(0, index, logit, "amax", include_self=False)
