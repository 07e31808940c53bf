# mypy: allow-untyped-defs, allow-incomplete-defs
r"""Gradients of reciprocal attention in fused Triton kernels that recompute the sums: no atomics, bitwise repeatable.

With :math:`P_{ij}` the attention weights and :math:`c_i = \bar y_i \cdot y_i - \bar \ell_i` (bars: gradients of the
loss), the logits have the gradient :math:`\bar z_{ij} = P_{ij} (\bar y_i \cdot v_j - c_i)` and the lattice sums
:math:`\bar S_{ij} = \bar z_{ij} / S_{ij}`, nothing where the floor acts. The kernel of rows makes the gradients of
:math:`q_i, \sigma_i^2`, the kernel of columns those of :math:`k_j, v_j`, each its side of the positions, and the kernel
of waves

.. math::
    \bar g_m = \sum_{ij} \bar S_{ij} E_{im} \big( \sin(a_{jm} - a_{im}) (p_i - p_j) -
    \sigma_i^2 g_m \cos(a_{jm} - a_{im}) \big).

A program of the last owns a tile of waves and needs S of all pairs, which costs one sum over all waves per tile: where
crystals have many waves this is the dearest part, and it can be left out if only positions ask for gradients.
"""

import triton
import triton.language as tl
from torch import Tensor

from torch_geometric_crystal.ops.reciprocal_attention.gradients import Gradients
from torch_geometric_crystal.ops.reciprocal_attention.triton_common import (
    NO_SPECIALIZATION,
    cos_sin,
    device_of,
    find_block,
    lattice_sums,
    launch_options,
    load_heads,
    load_positions,
    load_waves,
    matmul,
    members,
    num_slots,
    of_head,
    row_phases,
    rows_of,
    store_heads,
)
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


@triton.jit
def pair_gradients(
    sums, grad_out, grad_lse, query, key, value, out, lse, row, row_mask, column, column_mask, head, scale, floor,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, num_heads,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ATOMS: tl.constexpr,
):  # fmt: skip
    """Weights P of a tile, gradients of its logits and of its lattice sums; and grad_out, q and k.

    Everything of a head is read here, after the sums over waves, which need the registers.
    """
    stride = num_heads * HEAD_DIM
    grad = load_heads(grad_out, row, row_mask, head, stride, HEAD_DIM, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
    y = load_heads(out, row, row_mask, head, stride, HEAD_DIM, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
    grad_log_total = tl.load(of_head(grad_lse, row, head, num_heads, BLOCK_ATOMS), row_mask, other=0.0)
    log_total = tl.load(of_head(lse, row, head, num_heads, BLOCK_ATOMS), row_mask, other=0.0)
    v = load_heads(
        value, column, column_mask, head, value_stride, value_head_stride, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS
    )  # fmt: skip
    grad_weight = matmul(grad, tl.trans(v)) - (tl.sum(grad * y, 1) - grad_log_total)[:, None]
    q = load_heads(query, row, row_mask, head, query_stride, query_head_stride, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
    k = load_heads(key, column, column_mask, head, key_stride, key_head_stride, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
    logit = matmul(q, tl.trans(k)) * scale + tl.log(tl.maximum(sums, floor))
    weight = tl.exp(logit - log_total[:, None])
    weight = tl.where(row_mask[:, None] & column_mask[None, :], weight, 0.0)
    grad_logit = weight * grad_weight
    above = sums > floor
    return weight, grad_logit, tl.where(above, grad_logit / tl.where(above, sums, 1.0), 0.0), grad, q, k


@triton.jit
def row_spectrum(grad_sum, row_cos, row_sin, cos, sin):
    r"""Of each row and wave the sums over columns of :math:`\bar S E \sin(a_j - a_i)` and :math:`\bar S E \cos`."""
    over_cos, over_sin = matmul(grad_sum, cos), matmul(grad_sum, sin)
    return row_cos * over_sin - row_sin * over_cos, row_cos * over_cos + row_sin * over_sin


@triton.jit
def column_spectrum(grad_sum, row_cos, row_sin, cos, sin):
    r"""Of each column and wave the sum over rows of :math:`\bar S E \sin(a_j - a_i)`."""
    transposed = tl.trans(grad_sum)
    return matmul(transposed, row_cos) * sin - matmul(transposed, row_sin) * cos


@triton.jit(do_not_specialize=NO_SPECIALIZATION)
def row_kernel(
    grad_out, grad_lse, query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse,
    grad_query, grad_sigma_sq, grad_pos, scale, floor, num_segments,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, num_heads,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ATOMS: tl.constexpr, BLOCK_WAVES: tl.constexpr,
    NEED_POS: tl.constexpr,
):  # fmt: skip
    """Gradients of q and sigma^2, and of the positions of rows, for one block of rows and one head."""
    head = tl.program_id(1)
    crystal, first_row, end = find_block(atom_ptr, num_segments, tl.program_id(0), BLOCK_ATOMS)
    first_atom = tl.load(atom_ptr + crystal)
    first_wave = tl.load(wave_ptr + crystal)
    end_wave = tl.load(wave_ptr + crystal + 1)
    row_mask = members(first_row, end, BLOCK_ATOMS)
    if first_row < end:
        row_x, row_y, row_z = load_positions(pos, first_row, row_mask, first_atom, BLOCK_ATOMS)
        width = tl.load(of_head(sigma_sq, first_row, head, num_heads, BLOCK_ATOMS), row_mask, other=1.0)
        total_query = tl.zeros([BLOCK_ATOMS, BLOCK_DIM], tl.float32)
        total_width = tl.zeros([BLOCK_ATOMS], tl.float32)
        total_x = tl.zeros([BLOCK_ATOMS], tl.float32)
        total_y = tl.zeros([BLOCK_ATOMS], tl.float32)
        total_z = tl.zeros([BLOCK_ATOMS], tl.float32)
        for start in range(first_atom, tl.where(first_wave < end_wave, end, first_atom), BLOCK_ATOMS):
            mask = members(start, end, BLOCK_ATOMS)
            x, y, z = load_positions(pos, start, mask, first_atom, BLOCK_ATOMS)
            sums = lattice_sums(
                row_x, row_y, row_z, width, x, y, z, vector, first_wave, end_wave, BLOCK_ATOMS, BLOCK_WAVES
            )  # fmt: skip
            _, grad_logit, grad_sum, _, _, k = pair_gradients(
                sums, grad_out, grad_lse, query, key, value, out, lse, first_row, row_mask, start, mask, head, scale,
                floor, query_stride, query_head_stride, key_stride, key_head_stride, value_stride,
                value_head_stride, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS,
            )  # fmt: skip
            total_query += matmul(grad_logit, k)
            for wave_start in range(first_wave, end_wave, BLOCK_WAVES):
                wave_x, wave_y, wave_z, length_sq, count = load_waves(
                    vector, wave_start, end_wave, first_wave, BLOCK_WAVES
                )  # fmt: skip
                row_cos, row_sin = row_phases(
                    wave_x, wave_y, wave_z, length_sq, count, row_x, row_y, row_z, width
                )  # fmt: skip
                cos, sin = cos_sin(
                    wave_x[None, :], wave_y[None, :], wave_z[None, :], x[:, None], y[:, None], z[:, None]
                )  # fmt: skip
                turn, stretch = row_spectrum(grad_sum, row_cos, row_sin, cos, sin)
                total_width += tl.sum(stretch * length_sq[None, :], 1)
                if NEED_POS:
                    total_x += tl.sum(turn * wave_x[None, :], 1)
                    total_y += tl.sum(turn * wave_y[None, :], 1)
                    total_z += tl.sum(turn * wave_z[None, :], 1)
        total_query *= scale
        store_heads(grad_query, total_query, first_row, row_mask, head, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
        tl.store(of_head(grad_sigma_sq, first_row, head, num_heads, BLOCK_ATOMS), total_width * -0.5, row_mask)
        if NEED_POS:
            at = grad_pos + (first_row * num_heads + head) * 3 + tl.arange(0, BLOCK_ATOMS) * (num_heads * 3)
            tl.store(at, total_x, row_mask)
            tl.store(at + 1, total_y, row_mask)
            tl.store(at + 2, total_z, row_mask)


@triton.jit(do_not_specialize=NO_SPECIALIZATION)
def column_kernel(
    grad_out, grad_lse, query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse,
    grad_key, grad_value, grad_pos, scale, floor, num_segments,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, num_heads,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ATOMS: tl.constexpr, BLOCK_WAVES: tl.constexpr,
    NEED_POS: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v of one block of atoms and one head; their positions' are added to those of the rows."""
    head = tl.program_id(1)
    crystal, first_column, end = find_block(atom_ptr, num_segments, tl.program_id(0), BLOCK_ATOMS)
    first_atom = tl.load(atom_ptr + crystal)
    first_wave = tl.load(wave_ptr + crystal)
    end_wave = tl.load(wave_ptr + crystal + 1)
    mask = members(first_column, end, BLOCK_ATOMS)
    if first_column < end:
        x, y, z = load_positions(pos, first_column, mask, first_atom, BLOCK_ATOMS)
        total_key = tl.zeros([BLOCK_ATOMS, BLOCK_DIM], tl.float32)
        total_value = tl.zeros([BLOCK_ATOMS, BLOCK_DIM], tl.float32)
        total_x = tl.zeros([BLOCK_ATOMS], tl.float32)
        total_y = tl.zeros([BLOCK_ATOMS], tl.float32)
        total_z = tl.zeros([BLOCK_ATOMS], tl.float32)
        for start in range(first_atom, tl.where(first_wave < end_wave, end, first_atom), BLOCK_ATOMS):
            row_mask = members(start, end, BLOCK_ATOMS)
            row_x, row_y, row_z = load_positions(pos, start, row_mask, first_atom, BLOCK_ATOMS)
            width = tl.load(of_head(sigma_sq, start, head, num_heads, BLOCK_ATOMS), row_mask, other=1.0)
            sums = lattice_sums(
                row_x, row_y, row_z, width, x, y, z, vector, first_wave, end_wave, BLOCK_ATOMS, BLOCK_WAVES
            )  # fmt: skip
            weight, grad_logit, grad_sum, grad, q, _ = pair_gradients(
                sums, grad_out, grad_lse, query, key, value, out, lse, start, row_mask, first_column, mask, head,
                scale, floor, query_stride, query_head_stride, key_stride, key_head_stride, value_stride,
                value_head_stride, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS,
            )  # fmt: skip
            total_key += matmul(tl.trans(grad_logit), q)
            total_value += matmul(tl.trans(weight), grad)
            if NEED_POS:
                for wave_start in range(first_wave, end_wave, BLOCK_WAVES):
                    wave_x, wave_y, wave_z, length_sq, count = load_waves(
                        vector, wave_start, end_wave, first_wave, BLOCK_WAVES
                    )  # fmt: skip
                    row_cos, row_sin = row_phases(
                        wave_x, wave_y, wave_z, length_sq, count, row_x, row_y, row_z, width
                    )  # fmt: skip
                    cos, sin = cos_sin(
                        wave_x[None, :], wave_y[None, :], wave_z[None, :], x[:, None], y[:, None], z[:, None]
                    )  # fmt: skip
                    turn = column_spectrum(grad_sum, row_cos, row_sin, cos, sin)
                    total_x += tl.sum(turn * wave_x[None, :], 1)
                    total_y += tl.sum(turn * wave_y[None, :], 1)
                    total_z += tl.sum(turn * wave_z[None, :], 1)
        store_heads(grad_key, total_key * scale, first_column, mask, head, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
        store_heads(grad_value, total_value, first_column, mask, head, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS)
        if NEED_POS:
            at = grad_pos + (first_column * num_heads + head) * 3 + tl.arange(0, BLOCK_ATOMS) * (num_heads * 3)
            tl.store(at, tl.load(at, mask, other=0.0) - total_x, mask)
            tl.store(at + 1, tl.load(at + 1, mask, other=0.0) - total_y, mask)
            tl.store(at + 2, tl.load(at + 2, mask, other=0.0) - total_z, mask)


@triton.jit(do_not_specialize=NO_SPECIALIZATION)
def wave_kernel(
    grad_out, grad_lse, query, key, value, sigma_sq, pos, vector, atom_ptr, wave_ptr, out, lse,
    grad_vector, scale, floor, num_segments,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, num_heads, num_waves,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_ATOMS: tl.constexpr, BLOCK_WAVES: tl.constexpr,
):  # fmt: skip
    """One head's part of the gradients of a block of wave vectors."""
    head = tl.program_id(1)
    crystal, first, end_wave = find_block(wave_ptr, num_segments, tl.program_id(0), BLOCK_WAVES)
    first_wave = tl.load(wave_ptr + crystal)
    first_atom = tl.load(atom_ptr + crystal)
    end = tl.load(atom_ptr + crystal + 1)
    wave_x, wave_y, wave_z, length_sq, multiplicity = load_waves(vector, first, end_wave, first_wave, BLOCK_WAVES)
    total_x = tl.zeros([BLOCK_WAVES], tl.float32)
    total_y = tl.zeros([BLOCK_WAVES], tl.float32)
    total_z = tl.zeros([BLOCK_WAVES], tl.float32)
    total_stretch = tl.zeros([BLOCK_WAVES], tl.float32)
    if first < end_wave:
        for row_start in range(first_atom, end, BLOCK_ATOMS):
            row_mask = members(row_start, end, BLOCK_ATOMS)
            row_x, row_y, row_z = load_positions(pos, row_start, row_mask, first_atom, BLOCK_ATOMS)
            width = tl.load(of_head(sigma_sq, row_start, head, num_heads, BLOCK_ATOMS), row_mask, other=1.0)
            for start in range(first_atom, end, BLOCK_ATOMS):
                mask = members(start, end, BLOCK_ATOMS)
                x, y, z = load_positions(pos, start, mask, first_atom, BLOCK_ATOMS)
                sums = lattice_sums(
                    row_x, row_y, row_z, width, x, y, z, vector, first_wave, end_wave, BLOCK_ATOMS, BLOCK_WAVES
                )  # fmt: skip
                _, _, grad_sum, _, _, _ = pair_gradients(
                    sums, grad_out, grad_lse, query, key, value, out, lse, row_start, row_mask, start, mask, head,
                    scale, floor, query_stride, query_head_stride, key_stride, key_head_stride, value_stride,
                    value_head_stride, num_heads, HEAD_DIM, BLOCK_DIM, BLOCK_ATOMS,
                )  # fmt: skip
                row_cos, row_sin = row_phases(
                    wave_x, wave_y, wave_z, length_sq, multiplicity, row_x, row_y, row_z, width
                )  # fmt: skip
                cos, sin = cos_sin(
                    wave_x[None, :], wave_y[None, :], wave_z[None, :], x[:, None], y[:, None], z[:, None]
                )  # fmt: skip
                row_turn, stretch = row_spectrum(grad_sum, row_cos, row_sin, cos, sin)
                turn = column_spectrum(grad_sum, row_cos, row_sin, cos, sin)
                total_x += tl.sum(row_turn * row_x[:, None], 0) - tl.sum(turn * x[:, None], 0)
                total_y += tl.sum(row_turn * row_y[:, None], 0) - tl.sum(turn * y[:, None], 0)
                total_z += tl.sum(row_turn * row_z[:, None], 0) - tl.sum(turn * z[:, None], 0)
                total_stretch += tl.sum(stretch * width[:, None], 0)
        wave_mask = members(first, end_wave, BLOCK_WAVES)
        at = grad_vector + (head.to(tl.int64) * num_waves + first) * 3 + tl.arange(0, BLOCK_WAVES) * 3
        tl.store(at, total_x - total_stretch * wave_x, wave_mask)
        tl.store(at + 1, total_y - total_stretch * wave_y, wave_mask)
        tl.store(at + 2, total_z - total_stretch * wave_z, wave_mask)


def backward_triton(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    waves: WaveVectors,
    scale: float,
    floor: float,
    out: Tensor,
    lse: Tensor,
    need_pos: bool,
) -> Gradients:
    """As :func:`~torch_geometric_crystal.ops.reciprocal_attention.blocked.backward_blocked`, first derivatives only."""
    query, key, value = rows_of(query), rows_of(key), rows_of(value)
    num_atoms, num_heads, _ = query.shape
    grad_query, grad_key, grad_value = (tensor.new_empty(tensor.shape) for tensor in (query, key, value))
    grad_sigma_sq = sigma_sq.new_empty(sigma_sq.shape)
    grad_pos = waves.pos.new_zeros(num_atoms, num_heads, 3) if need_pos else None
    grad_vector = waves.vector.new_zeros(num_heads, waves.vector.size(0), 3) if need_pos else None
    num_crystals = waves.atom_ptr.numel() - 1
    inputs = (
        grad_out.contiguous(), grad_lse.contiguous(), query, key, value, sigma_sq.contiguous(), waves.pos.contiguous(),
        waves.vector.contiguous(), waves.atom_ptr, waves.wave_ptr, out, lse,
    )  # fmt: skip
    strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2], num_heads)
    if num_atoms > 0:
        with device_of(query):
            options = launch_options("rows", query, waves)
            grid = (num_slots(num_atoms, num_crystals, options["BLOCK_ATOMS"]), num_heads)
            row_kernel[grid](
                *inputs, grad_query, grad_sigma_sq, grad_pos, scale, floor, num_crystals, *strides,
                NEED_POS=need_pos, **options,
            )  # fmt: skip
            options = launch_options("columns with positions" if need_pos else "columns", query, waves)
            grid = (num_slots(num_atoms, num_crystals, options["BLOCK_ATOMS"]), num_heads)
            column_kernel[grid](
                *inputs, grad_key, grad_value, grad_pos, scale, floor, num_crystals, *strides,
                NEED_POS=need_pos, **options,
            )  # fmt: skip
            if grad_vector is not None:
                num_waves = waves.vector.size(0)
                options = launch_options("waves", query, waves)
                grid = (num_slots(num_waves, num_crystals, options["BLOCK_WAVES"]), num_heads)
                wave_kernel[grid](*inputs, grad_vector, scale, floor, num_crystals, *strides, num_waves, **options)
    return Gradients(
        grad_query, grad_key, grad_value, grad_sigma_sq,
        None if grad_pos is None else grad_pos.sum(1), None if grad_vector is None else grad_vector.sum(0),
    )  # fmt: skip
