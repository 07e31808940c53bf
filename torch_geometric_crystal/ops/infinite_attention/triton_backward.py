# mypy: allow-untyped-defs, allow-incomplete-defs
r"""The fused backward pass: a kernel over target atoms, then one over source atoms. No atomics, hence repeatable bits.

With the weights normalised, :math:`a_e = e^{z_e - lse_i}`, and the gradients of the outputs given,

.. math::
    \bar a_e = \bar o_i \cdot v_{j(e)} + \bar u_i \cdot b(r_e), \qquad \bar u_i = W^{E\top} \bar o_i + \bar m_i, \qquad
    \bar z_e = a_e (\bar a_e - c_i), \qquad c_i = \bar o_i \cdot o_i + \bar m_i \cdot u_i - \overline{lse}_i,

where :math:`m = u` is the mean basis as an output. The row kernel recomputes :math:`a_e` and :math:`b(r_e)` as the
forward pass does (see :mod:`~.triton_common` for the loops) and sums

.. math::
    A_p = \sum_{e \in p} a_e, \quad Z_p = \sum_{e \in p} \bar z_e, \quad
    \bar q_i = s \sum_p Z_p k_{j(p)}, \quad \bar \rho_i = - \sum_e \bar z_e \frac{r_e^2}{2 r_0^2}, \quad
    \bar r_e = \sum_h a_e\, \bar u_i \cdot b'(r_e) - \bar z_e \frac{\rho_i r_e}{r_0^2};

A and Z go to memory, (P, H) each. The column kernel gathers them over the transposed multigraph, per source atom j

.. math::
    \bar v_j = \sum_{p: j(p) = j} A_p\, \bar o_{i(p)}, \qquad \bar k_j = s \sum_{p: j(p) = j} Z_p\, q_{i(p)}.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.gradients import Gradients
from torch_geometric_crystal.ops.infinite_attention.triton_common import (
    LOG_2,
    TileShape,
    basis_scales,
    gaussians,
    load_basis,
    load_chunk,
    load_slots,
    load_vectors,
    membership,
    split_product,
    sum_by_pair,
    tile_shape,
    to_slots,
)
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import GaussianBasis
from torch_geometric_crystal.ops.strides import with_dense_rows


def backward_triton(
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    neighborhood: Neighborhood,
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    need_dist: bool,
) -> Gradients:
    """Gradients with respect to every input, given those of the three outputs of ``forward_triton``.

    Args:
        grad_out: gradient of the output, shape (N, H, d).
        grad_lse: gradient of the log-sum-exp, shape (N, H).
        grad_mean_basis: gradient of the mean basis, shape (N, H, K).
        query, key, value, rho, dist, neighborhood, r0, scale, value_encoding, basis: as in ``forward_triton``.
        out, lse, mean_basis: what ``forward_triton`` returned.
        need_dist: whether the gradient with respect to `dist` is wanted.
    """
    query, key, value = with_dense_rows(query), with_dense_rows(key), with_dense_rows(value)
    grad_out, out = with_dense_rows(grad_out), with_dense_rows(out)
    num_basis = 0 if basis is None else basis.num
    tile = tile_shape(query.size(1), query.size(2), num_basis, basis_values=1024 if need_dist else 2048)
    grad_basis, grad_encoding = _through_encoding(grad_out, grad_mean_basis, value_encoding, mean_basis)
    with torch.cuda.device_of(query):
        grad_query, grad_rho, grad_dist, pair_weight, pair_grad = _run_rows(
            grad_out, grad_lse, grad_mean_basis, grad_basis, query, key, value, rho, dist, neighborhood, r0, scale,
            basis, out, lse, mean_basis, need_dist, tile,
        )  # fmt: skip
        grad_key, grad_value = _run_columns(
            grad_out, query, key, value, neighborhood, scale, pair_weight, pair_grad, tile
        )
    return Gradients(grad_query, grad_key, grad_value, grad_rho, grad_dist, grad_encoding)


def _through_encoding(
    grad_out: Tensor, grad_mean_basis: Tensor, value_encoding: Tensor | None, mean_basis: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Gradient of u, by both ways to it, as (H, N, K), and of W^E, (H, d, K)."""
    if value_encoding is None:
        return grad_mean_basis, None
    grad_out = grad_out.to(mean_basis.dtype)
    encoding = value_encoding.to(mean_basis.dtype)
    grad_basis = torch.baddbmm(grad_mean_basis.transpose(0, 1), grad_out.transpose(0, 1), encoding)
    grad_encoding = torch.bmm(grad_out.permute(1, 2, 0), mean_basis.transpose(0, 1))
    return grad_basis.contiguous(), grad_encoding.to(value_encoding.dtype)


def _run_rows(
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor,
    grad_basis: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    neighborhood: Neighborhood,
    r0: float,
    scale: float,
    basis: GaussianBasis | None,
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    need_dist: bool,
    tile: TileShape,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of q, rho and, if asked for, distances, and the pairs' sums A and Z, (P, H)."""
    num_rows, num_heads, head_dim = query.shape
    num_basis, sharpness, step = basis_scales(basis)
    head_blocks = triton.cdiv(num_heads, tile.heads)
    grad_query, grad_rho = query.new_empty(query.shape), rho.new_empty(rho.shape)
    grad_dist = dist.new_empty(head_blocks if need_dist else 0, dist.numel())
    pair_weight = rho.new_empty(neighborhood.pair_source.numel(), num_heads)
    pair_grad = torch.empty_like(pair_weight)
    if num_rows:
        row_kernel[(num_rows, head_blocks)](
            grad_out, grad_lse.contiguous(), grad_mean_basis.contiguous(), grad_basis, query, key, value,
            rho.contiguous(), dist.contiguous(), neighborhood.pair_order, neighborhood.pair_ptr,
            neighborhood.pair_source, neighborhood.row_pair_ptr, neighborhood.edge_pair, out, lse, mean_basis,
            grad_query, grad_rho, grad_dist, pair_weight, pair_grad,
            grad_out.stride(0), query.stride(0), key.stride(0), value.stride(0), out.stride(0), num_rows, dist.numel(),
            scale, math.log2(math.e) / (2 * r0**2), sharpness, step,
            HEADS=num_heads, DIM=head_dim, BASIS=num_basis, NEED_DIST=need_dist, TILE_HEADS=tile.heads,
            TILE_DIM=tile.dim, TILE_BASIS=tile.basis, PAIRS=tile.pairs, SLOTS=tile.slots,
            num_warps=tile.num_warps, enable_fp_fusion=True,
        )  # fmt: skip
    return grad_query, grad_rho, grad_dist.sum(0) if need_dist else None, pair_weight, pair_grad


def _run_columns(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    neighborhood: Neighborhood,
    scale: float,
    pair_weight: Tensor,
    pair_grad: Tensor,
    tile: TileShape,
) -> tuple[Tensor, Tensor]:
    """Gradients of k and v."""
    num_atoms, num_heads, head_dim = key.shape
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    if num_atoms:
        column_kernel[(num_atoms, triton.cdiv(num_heads, tile.heads))](
            grad_out, query, pair_weight, pair_grad, neighborhood.pair_target, neighborhood.column_ptr,
            neighborhood.column_pair, grad_key, grad_value, grad_out.stride(0), query.stride(0), scale,
            HEADS=num_heads, DIM=head_dim, TILE_HEADS=tile.heads, TILE_DIM=tile.dim, PAIRS=tile.pairs,
            num_warps=tile.num_warps, enable_fp_fusion=True,
        )  # fmt: skip
    return grad_key, grad_value


@triton.jit(do_not_specialize=["num_rows", "num_edges"])
def row_kernel(
    grad_out, grad_lse, grad_mean_basis, grad_basis, query, key, value, rho, dist, pair_order, pair_ptr, pair_source,
    row_pair_ptr, edge_pair, out, lse, mean_basis, grad_query, grad_rho, grad_dist, pair_weight, pair_grad,
    grad_stride, query_stride, key_stride, value_stride, out_stride, num_rows, num_edges, scale, decay_scale,
    sharpness, step,
    HEADS: tl.constexpr, DIM: tl.constexpr, BASIS: tl.constexpr, NEED_DIST: tl.constexpr,
    TILE_HEADS: tl.constexpr, TILE_DIM: tl.constexpr, TILE_BASIS: tl.constexpr,
    PAIRS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """One row and block of heads. Logits are in units of log 2, so that weights are exp2 of them."""
    EXACT: tl.constexpr = HEADS % TILE_HEADS == 0 and DIM == TILE_DIM
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE_HEADS + tl.arange(0, TILE_HEADS)
    dim = tl.arange(0, TILE_DIM)
    column = head[:, None] * DIM + dim[None, :]
    used = (head < HEADS)[:, None] & (dim < DIM)[None, :]
    per_head = row * HEADS + head
    q = load_vectors(query + row * query_stride, column, used, EXACT) * (scale / LOG_2)
    do = load_vectors(grad_out + row * grad_stride, column, used, EXACT)
    decay = tl.load(rho + per_head, mask=head < HEADS, other=0.0) * decay_scale
    norm = tl.load(lse + per_head, mask=head < HEADS, other=0.0) / LOG_2
    centred = tl.sum(do * load_vectors(out + row * out_stride, column, used, EXACT), axis=1)
    centred -= tl.load(grad_lse + per_head, mask=head < HEADS, other=0.0)
    if BASIS > 0:
        u = load_basis(mean_basis + row * (HEADS * BASIS), BASIS, head, HEADS, BASIS, TILE_BASIS)
        du = load_basis(grad_mean_basis + row * (HEADS * BASIS), BASIS, head, HEADS, BASIS, TILE_BASIS)
        centred += tl.sum(u * du, axis=0)
        du = load_basis(grad_basis + row * BASIS, tl.cast(num_rows, tl.int64) * BASIS, head, HEADS, BASIS, TILE_BASIS)
        centre = (tl.arange(0, TILE_BASIS) + 1).to(tl.float32) * step

    dq = tl.zeros((TILE_HEADS, TILE_DIM), tl.float32)
    moment = tl.zeros((SLOTS, TILE_HEADS), tl.float32)
    end = tl.load(row_pair_ptr + row + 1)
    for first_pair in range(tl.load(row_pair_ptr + row), end, PAIRS):
        source, first_slot, num_slots = load_chunk(first_pair, end, pair_source, pair_ptr, PAIRS)
        k = load_vectors(key, (source * key_stride)[:, None, None] + column[None], used[None], EXACT)
        qk = tl.sum(q[None] * k, axis=2) - norm[None, :]
        v = load_vectors(value, (source * value_stride)[:, None, None] + column[None], used[None], EXACT)
        gain = tl.sum(do[None] * v, axis=2) - centred[None, :]

        weights = tl.zeros((PAIRS, TILE_HEADS), tl.float32)
        grads = tl.zeros((PAIRS, TILE_HEADS), tl.float32)
        for first in range(0, num_slots, SLOTS):
            edge, valid, r, member = load_slots(
                first, num_slots, first_slot, first_pair, pair_order, edge_pair, dist, 0.0, SLOTS
            )
            logit = to_slots(qk, member, SLOTS, TILE_HEADS) - decay[None, :] * (r * r)[:, None]
            weight = tl.where(valid[:, None], tl.exp2(logit), 0.0)
            grad = to_slots(gain, member, SLOTS, TILE_HEADS)
            if BASIS > 0:
                b, t = gaussians(r[:, None], centre[None, :], sharpness)
                grad = split_product(b, du, grad)
            grad *= weight
            belongs = membership(member, PAIRS)
            weights = sum_by_pair(belongs, weight, weights)
            grads = sum_by_pair(belongs, grad, grads)
            moment += grad * (r * r)[:, None]
            if NEED_DIST:
                slope = grad * decay[None, :] * r[:, None]
                if BASIS > 0:
                    none = tl.zeros((SLOTS, TILE_HEADS), tl.float32)
                    slope += split_product(b * t, du, none) * weight * sharpness
                address = grad_dist + tl.program_id(1).to(tl.int64) * num_edges + edge
                tl.store(address, tl.sum(slope, axis=1) * (-2.0 * LOG_2), mask=valid)

        store_sums(pair_weight, weights, first_pair, end, head, HEADS, PAIRS)
        store_sums(pair_grad, grads, first_pair, end, head, HEADS, PAIRS)
        source, _, _ = load_chunk(first_pair, end, pair_source, pair_ptr, PAIRS)  # again: frees its registers meanwhile
        k = load_vectors(key, (source * key_stride)[:, None, None] + column[None], used[None], EXACT)
        dq += tl.sum(grads[:, :, None] * k, axis=0)

    tl.store(grad_query + row * (HEADS * DIM) + column, dq * scale, mask=used)
    tl.store(grad_rho + per_head, tl.sum(moment, axis=0) * (-LOG_2 * decay_scale), mask=head < HEADS)


@triton.jit
def store_sums(base, sums, first_pair, end, head, HEADS: tl.constexpr, PAIRS: tl.constexpr):
    """Store the (PAIRS, TILE_HEADS) sums of a chunk to the rows of a (P, H) array, those of its pairs before `end`."""
    pair = first_pair + tl.arange(0, PAIRS)
    mask = (pair < end)[:, None] & (head < HEADS)[None, :]
    tl.store(base + (pair * HEADS)[:, None] + head[None, :], sums, mask=mask)


@triton.jit
def column_kernel(
    grad_out, query, pair_weight, pair_grad, pair_target, column_ptr, column_pair, grad_key, grad_value,
    grad_stride, query_stride, scale,
    HEADS: tl.constexpr, DIM: tl.constexpr, TILE_HEADS: tl.constexpr, TILE_DIM: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """One source atom and block of heads."""
    EXACT: tl.constexpr = HEADS % TILE_HEADS == 0 and DIM == TILE_DIM
    atom = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE_HEADS + tl.arange(0, TILE_HEADS)
    dim = tl.arange(0, TILE_DIM)
    column = head[:, None] * DIM + dim[None, :]
    used = (head < HEADS)[:, None] & (dim < DIM)[None, :]
    dk = tl.zeros((TILE_HEADS, TILE_DIM), tl.float32)
    dv = tl.zeros((TILE_HEADS, TILE_DIM), tl.float32)
    end = tl.load(column_ptr + atom + 1)
    for first in range(tl.load(column_ptr + atom), end, PAIRS):
        count = tl.minimum(end - first, PAIRS).to(tl.int32)
        local = tl.arange(0, PAIRS)
        pair = tl.load(column_pair + first + tl.minimum(local, count - 1))
        target = tl.load(pair_target + pair).to(tl.int32).to(tl.int64)
        entry = (pair * HEADS)[:, None] + head[None, :]
        mask = (local < count)[:, None] & (head < HEADS)[None, :]
        weight = tl.load(pair_weight + entry, mask=mask, other=0.0)
        do = load_vectors(grad_out, (target * grad_stride)[:, None, None] + column[None], used[None], EXACT)
        dv += tl.sum(weight[:, :, None] * do, axis=0)
        grad = tl.load(pair_grad + entry, mask=mask, other=0.0)
        q = load_vectors(query, (target * query_stride)[:, None, None] + column[None], used[None], EXACT)
        dk += tl.sum(grad[:, :, None] * q, axis=0)
    tl.store(grad_key + atom * (HEADS * DIM) + column, dk * scale, mask=used)
    tl.store(grad_value + atom * (HEADS * DIM) + column, dv, mask=used)
