# mypy: allow-untyped-defs, allow-incomplete-defs
r"""The fused forward pass: one program per target atom and block of heads, nothing per edge written to memory.

.. math::
    w_e = 2^{z_e}, \quad z_e = \log_2 e \left(s\, q_i \cdot k_{j(e)} - \frac{\rho_i r_e^2}{2 r_0^2}\right), \qquad
    S_p = \sum_{e \in p} w_e, \quad o_i = \frac{\sum_p S_p v_{j(p)}}{\sum_p S_p}, \quad
    u_i = \frac{\sum_e w_e b(r_e)}{\sum_p S_p},

for the edges e and the pairs p of row i. Per chunk of pairs (see :mod:`~.triton_common` for the loops)

1. the keys of the pairs are read and q.k is computed, once per pair;
2. a first pass over the chunk's slots finds each pair's nearest image, where its logit is largest, and what earlier
   chunks summed is rescaled by the largest of all. Exponents are then at most zero, in whatever order the edges come,
   and the second pass never rescales;
3. a second pass sums, a tile of slots at a time, u += b(r)^T w and S += belongs^T w on tensor cores;
4. the values of the pairs are read, and o += S v.

The output's other part, :math:`W^E u`, is one batched product of all rows.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.blocked import project_basis
from torch_geometric_crystal.ops.infinite_attention.triton_common import (
    LOG_2,
    basis_scales,
    gaussians,
    load_chunk,
    load_slots,
    load_vectors,
    membership,
    split_product,
    store_basis,
    sum_by_pair,
    tile_shape,
    to_slots,
)
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import GaussianBasis
from torch_geometric_crystal.ops.strides import with_dense_rows

FAR: tl.constexpr = tl.constexpr(1e18)
"""A distance, A, beyond all others, whose square float32 still holds."""


def forward_triton(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (N, H, d), log-sum-exp (N, H) and the mean basis u (N, H, K) of every row (K = 0 without encoding).

    Args:
        query: q, shape (N, H, d), float32, bfloat16 or float16; rows may be any stride apart.
        key: k, likewise.
        value: v, likewise; the output takes its dtype, all sums are float32.
        rho: inverse squared width in units of r0, shape (N, H), float32.
        dist: distance of each edge, A, shape (E,), float32.
        neighborhood: the edges.
        r0: length scale, A.
        scale: factor s of the logits.
        value_encoding: W^E, shape (H, d, K), or None.
        basis: the radial basis, or None.
    """
    num_rows, num_heads, head_dim = query.shape
    num_basis, sharpness, step = basis_scales(basis)
    out = torch.empty(
        num_rows, num_heads, head_dim, dtype=torch.float32 if num_basis else value.dtype, device=value.device
    )
    lse = torch.empty_like(rho, memory_format=torch.contiguous_format)
    mean_basis = rho.new_empty(num_rows, num_heads, num_basis)
    query, key, value = with_dense_rows(query), with_dense_rows(key), with_dense_rows(value)
    tile = tile_shape(num_heads, head_dim, num_basis, basis_values=1024)
    if num_rows:
        with torch.cuda.device_of(query):
            forward_kernel[(num_rows, triton.cdiv(num_heads, tile.heads))](
                query, key, value, rho.contiguous(), dist.contiguous(),
                neighborhood.pair_order, neighborhood.pair_ptr, neighborhood.pair_source, neighborhood.row_pair_ptr,
                neighborhood.edge_pair, out, lse, mean_basis, query.stride(0), key.stride(0), value.stride(0),
                scale * math.log2(math.e), math.log2(math.e) / (2 * r0**2), sharpness, step,
                HEADS=num_heads, DIM=head_dim, BASIS=num_basis, TILE_HEADS=tile.heads, TILE_DIM=tile.dim,
                TILE_BASIS=tile.basis, PAIRS=tile.pairs, SCAN=tile.scan, SLOTS=tile.slots,
                num_warps=tile.num_warps, enable_fp_fusion=True,
            )  # fmt: skip
    if value_encoding is not None:
        out += project_basis(mean_basis, value_encoding.to(mean_basis.dtype))
    return out.to(value.dtype), lse, mean_basis


@triton.jit
def forward_kernel(
    query, key, value, rho, dist, pair_order, pair_ptr, pair_source, row_pair_ptr, edge_pair, out, lse, mean_basis,
    query_stride, key_stride, value_stride, logit_scale, decay_scale, sharpness, step,
    HEADS: tl.constexpr, DIM: tl.constexpr, BASIS: tl.constexpr,
    TILE_HEADS: tl.constexpr, TILE_DIM: tl.constexpr, TILE_BASIS: tl.constexpr,
    PAIRS: tl.constexpr, SCAN: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """One row and block of heads. Logits are in units of log 2, so that weights are exp2 of them."""
    EXACT: tl.constexpr = HEADS % TILE_HEADS == 0 and DIM == TILE_DIM
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TILE_HEADS + tl.arange(0, TILE_HEADS)
    dim = tl.arange(0, TILE_DIM)
    column = head[:, None] * DIM + dim[None, :]
    used = (head < HEADS)[:, None] & (dim < DIM)[None, :]
    q = load_vectors(query + row * query_stride, column, used, EXACT) * logit_scale
    decay = tl.load(rho + row * HEADS + head, mask=head < HEADS, other=0.0) * decay_scale
    centre = (tl.arange(0, TILE_BASIS) + 1).to(tl.float32) * step

    largest = tl.full((TILE_HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_HEADS,), tl.float32)
    values = tl.zeros((TILE_HEADS, TILE_DIM), tl.float32)
    u = tl.zeros((TILE_BASIS, TILE_HEADS), tl.float32)
    end = tl.load(row_pair_ptr + row + 1)
    for first_pair in range(tl.load(row_pair_ptr + row), end, PAIRS):
        source, first_slot, num_slots = load_chunk(first_pair, end, pair_source, pair_ptr, PAIRS)
        k = load_vectors(key, (source * key_stride)[:, None, None] + column[None], used[None], EXACT)
        qk = tl.sum(q[None] * k, axis=2)

        nearest = nearest_images(first_slot, num_slots, first_pair, pair_order, edge_pair, dist, PAIRS, SCAN)
        so_far = largest
        largest = tl.maximum(so_far, tl.max(qk - decay[None, :] * (nearest * nearest)[:, None], axis=0))
        rescale = tl.exp2(so_far - largest)

        u *= rescale[None, :]
        qk -= largest[None, :]
        share = tl.zeros((PAIRS, TILE_HEADS), tl.float32)
        for first in tl.range(0, num_slots, SLOTS, num_stages=1):
            _, valid, r, member = load_slots(
                first, num_slots, first_slot, first_pair, pair_order, edge_pair, dist, 0.0, SLOTS
            )
            logit = to_slots(qk, member, SLOTS, TILE_HEADS) - decay[None, :] * (r * r)[:, None]
            weight = tl.where(valid[:, None], tl.exp2(logit), 0.0)
            share = sum_by_pair(membership(member, PAIRS), weight, share)
            if BASIS > 0:
                b, _ = gaussians(r[None, :], centre[:, None], sharpness)
                u = split_product(b, weight, u)

        v = load_vectors(value, (source * value_stride)[:, None, None] + column[None], used[None], EXACT)
        values = values * rescale[:, None] + tl.sum(share[:, :, None] * v, axis=0)
        total = total * rescale + tl.sum(share, axis=0)

    norm = tl.where(total > 0.0, 1.0 / total, 0.0)
    tl.store(out + row * (HEADS * DIM) + column, values * norm[:, None], mask=used)
    tl.store(lse + row * HEADS + head, (largest + tl.log2(total)) * LOG_2, mask=head < HEADS)
    if BASIS > 0:
        store_basis(mean_basis + row * (HEADS * BASIS), u * norm[None, :], head, HEADS, BASIS, TILE_BASIS)


@triton.jit
def nearest_images(
    first_slot, num_slots, first_pair, pair_order, edge_pair, dist, PAIRS: tl.constexpr, SCAN: tl.constexpr
):
    """Distance of each pair's nearest image, (PAIRS,): a pair's largest logit is there, as rho is positive.

    Very far for the repetitions at the end of a short chunk.
    """
    nearest = tl.full((SCAN, PAIRS), FAR, tl.float32)
    pair = tl.arange(0, PAIRS)
    for first in range(0, num_slots, SCAN):
        _, _, r, member = load_slots(first, num_slots, first_slot, first_pair, pair_order, edge_pair, dist, FAR, SCAN)
        nearest = tl.where(member[:, None] == pair[None, :], tl.minimum(nearest, r[:, None]), nearest)
    return tl.min(nearest, axis=0)
