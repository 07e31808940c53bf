# mypy: allow-untyped-defs, allow-incomplete-defs
"""Reciprocal attention in one fused Triton kernel: phases, sums over waves, online softmax and weighted values."""

import triton
import triton.language as tl
from torch import Tensor

from torch_geometric_crystal.ops.reciprocal_attention.triton_common import (
    NO_SPECIALIZATION,
    device_of,
    find_block,
    lattice_sums,
    launch_options,
    load_heads,
    load_positions,
    matmul,
    members,
    num_slots,
    of_head,
    rows_of,
    store_heads,
)
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


def forward_triton(
    query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, waves: WaveVectors, scale: float, floor: float
) -> tuple[Tensor, Tensor]:
    """As :func:`~torch_geometric_crystal.ops.reciprocal_attention.blocked.forward_blocked`.

    `query`, `key` and `value` float32, float16 or bfloat16, any rows that a stride gives; the rest float32.
    """
    query, key, value, sigma_sq = rows_of(query), rows_of(key), rows_of(value), sigma_sq.contiguous()
    num_atoms, num_heads, _ = query.shape
    out = value.new_empty(value.shape)
    lse = sigma_sq.new_empty(sigma_sq.shape)
    if num_atoms == 0:
        return out, lse
    options = launch_options("forward", query, waves)
    num_crystals = waves.atom_ptr.numel() - 1
    grid = (num_slots(num_atoms, num_crystals, options["BLOCK_ATOMS"]), num_heads)
    with device_of(query):
        forward_kernel[grid](
            query, key, value, sigma_sq, waves.pos.contiguous(), waves.vector.contiguous(), waves.atom_ptr,
            waves.wave_ptr, out, lse, scale, floor, num_crystals,
            *query.stride()[:2], *key.stride()[:2], *value.stride()[:2], num_heads, **options,
        )  # fmt: skip
    return out, lse


@triton.jit(do_not_specialize=NO_SPECIALIZATION)
def forward_kernel(
    query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse, scale, floor, num_segments,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, num_heads,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ATOMS: tl.constexpr, BLOCK_WAVES: tl.constexpr,
):  # fmt: skip
    """A program has one block of rows of one crystal, and one head; it streams over the crystal's atoms."""
    head = tl.program_id(1)
    crystal, first_row, end = find_block(atom_ptr, num_segments, tl.program_id(0), BLOCK_ATOMS)
    first_atom = tl.load(atom_ptr + crystal)
    first_wave = tl.load(wave_ptr + crystal)
    end_wave = tl.load(wave_ptr + crystal + 1)
    row_mask = members(first_row, end, BLOCK_ATOMS)
    if first_row < end:
        row_x, row_y, row_z = load_positions(pos, first_row, row_mask, first_atom, BLOCK_ATOMS)
        width = tl.load(of_head(sigma_sq, first_row, head, num_heads, BLOCK_ATOMS), row_mask, other=1.0)
        largest = tl.full([BLOCK_ATOMS], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_ATOMS], tl.float32)
        mean = tl.zeros([BLOCK_ATOMS, BLOCK_DIM], tl.float32)
        for start in range(first_atom, end, BLOCK_ATOMS):
            mask = members(start, end, BLOCK_ATOMS)
            x, y, z = load_positions(pos, start, mask, first_atom, BLOCK_ATOMS)
            sums = lattice_sums(
                row_x, row_y, row_z, width, x, y, z, vector, first_wave, end_wave, BLOCK_ATOMS, BLOCK_WAVES
            )  # fmt: skip
            q = load_heads(
                query, first_row, row_mask, head, query_stride, query_head_stride, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS
            )  # fmt: skip
            k = load_heads(key, start, mask, head, key_stride, key_head_stride, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
            logit = matmul(q, tl.trans(k)) * scale + tl.log(tl.maximum(sums, floor))
            logit = tl.where(mask[None, :] & (first_wave < end_wave), logit, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(logit, 1))
            # A row may have no finite logit: a crystal without waves.
            shift = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            weight = tl.exp(logit - shift[:, None])
            shrink = tl.exp(largest - shift)
            v = load_heads(value, start, mask, head, value_stride, value_head_stride, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
            total = total * shrink + tl.sum(weight, 1)
            mean = mean * shrink[:, None] + matmul(weight, v)
            largest = new_largest
        total = tl.where(total > 0.0, total, 1.0)
        mean = mean / total[:, None]
        store_heads(out, mean, first_row, row_mask, head, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
        tl.store(of_head(lse, first_row, head, num_heads, BLOCK_ATOMS), largest + tl.log(total), row_mask)
