"""The public door of infinite attention: signature, checks and choice of backend."""

import math

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.backend import choose_backend
from torch_geometric_crystal.ops.infinite_attention.reference import infinite_attention_reference
from torch_geometric_crystal.ops.infinite_attention.registered import attend
from torch_geometric_crystal.ops.infinite_attention.row_blocks import RowBlock, flatten_blocks
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import NO_BASIS, GaussianBasis


def infinite_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    neighborhood: Neighborhood,
    *,
    r0: float = 1.4,
    scale: float | None = None,
    value_encoding: Tensor | None = None,
    basis: GaussianBasis | None = None,
    blocks: list[RowBlock] | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Softmax attention of every atom over all periodic images of all atoms, with a Gaussian decay in distance.

    .. math::
        \mathbf{y}_i = \sum_e w_e \left(\mathbf{v}_{j(e)} + W^E\, \mathbf{b}(r_e)\right), \qquad
        w_e = \frac{\exp\left(s\, \mathbf{q}_i \cdot \mathbf{k}_{j(e)} - r_e^2 / 2\sigma_i^2\right)}
                   {\sum_{e'} \exp\left(s\, \mathbf{q}_i \cdot \mathbf{k}_{j(e')} - r_{e'}^2 / 2\sigma_i^2\right)},
        \qquad \sigma_i^2 = r_0^2 / \rho_i,

    per head, the sums running over the edges e of target i: the images of source atoms j within the cutoff. This is the
    infinitely connected attention of Crystalformer (Taniai et al., ICLR 2024, arXiv 2403.11686), with its Gaussian
    decay and value position encoding; the paper's two levels (alpha and beta, sums over the images of one atom, then a
    softmax over the atoms of the cell) are one softmax over edges.

    Args:
        query: q, shape (N, H, d), float32, float64, float16 or bfloat16. Sums are in float32 or better.
        key: k, shape (N, H, d).
        value: v, shape (N, H, d).
        rho: inverse squared width in units of r0, positive, shape (N, H). It, the distances and `value_encoding` are
            of the dtype of q, or float32 where that is of half precision.
        neighborhood: the edges, from :func:`~torch_geometric_crystal.ops.group_edges`. Gradients flow to its `dist`.
        r0: length scale, A.
        scale: factor s of the logits; default :math:`1/\sqrt{d}`.
        value_encoding: W^E, shape (H, d, K), or None for values without position encoding.
        basis: the radial basis b; needed exactly when `value_encoding` is given.
        blocks: for the backend ``"blocked"``, what :func:`~torch_geometric_crystal.ops.prepare_row_blocks` made of the
            same `neighborhood` and `basis`, where several layers share them; else it is made here.
        backend: one of :data:`~torch_geometric_crystal.ops.backend.BACKENDS`; by default what
            :func:`~torch_geometric_crystal.ops.use_backend` set.

    Returns:
        The output y, shape (N, H, d), and the logarithm of each row's denominator, shape (N, H). A row without edges
        gives zeros and minus infinity.

    Raises:
        ValueError: if shapes or dtypes disagree, or the backend is unknown.
        RuntimeError: if a forced backend cannot run on these tensors.
        TypeError: if an argument is not a tensor.
    """
    _check_arguments(query, key, value, rho, neighborhood, value_encoding, basis)
    scale = 1.0 / math.sqrt(query.size(-1)) if scale is None else scale
    chosen = choose_backend(backend, query.device, query.dtype)
    if chosen == "reference":
        return infinite_attention_reference(query, key, value, rho, neighborhood, r0, scale, value_encoding, basis)
    num_basis, spacing = basis or NO_BASIS
    dist, *groups = neighborhood
    out, lse, _ = attend(
        query, key, value, rho, dist, value_encoding, groups, flatten_blocks(blocks or ()), chosen,
        r0, scale, num_basis, spacing,
    )  # fmt: skip
    return out, lse


def _check_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    neighborhood: Neighborhood,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
) -> None:
    check_shape("query", query, (neighborhood.num_rows, None, None))
    num_nodes, num_heads, head_dim = query.shape
    check_shape("key", key, (num_nodes, num_heads, head_dim))
    check_shape("value", value, (num_nodes, num_heads, head_dim))
    check_shape("rho", rho, (num_nodes, num_heads))
    check_argument(query.dtype.is_floating_point, "query", "a dtype of floating point", query.dtype)
    for name, tensor in (("key", key), ("value", value)):
        check_argument(tensor.dtype == query.dtype, name, f"the dtype of query, {query.dtype}", tensor.dtype)
    precise = torch.promote_types(query.dtype, torch.float32)
    float_tensors = {"rho": rho, "neighborhood.dist": neighborhood.dist, "value_encoding": value_encoding}
    for name, optional in float_tensors.items():
        if optional is not None:
            check_argument(
                optional.dtype == precise, name, f"{precise}, beside a query of {query.dtype}", optional.dtype
            )
    check_argument(
        (value_encoding is None) == (basis is None), "basis", "one together with value_encoding, or neither", basis
    )
    if value_encoding is not None and basis is not None:
        check_shape("value_encoding", value_encoding, (num_heads, head_dim, basis.num))
