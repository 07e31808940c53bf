# mypy: allow-untyped-defs, allow-incomplete-defs
r"""What the fused kernels of reciprocal attention share: tiles of the sum over waves, and which tile a program owns.

.. math::
    S_{ij} = \sum_m E_{im} \cos(a_{jm} - a_{im}) =
    \sum_m (E_{im} \cos a_{im}) \cos a_{jm} + (E_{im} \sin a_{im}) \sin a_{jm}, \qquad a_{im} = g_m \cdot p_i,

is a matrix product over the waves, in tiles of rows i, columns j and waves m. It runs on tensor cores as three tf32
products (``tf32x3``), which keeps float32 accuracy.

Phases are computed where they are used, not read from a table of (atoms, waves). In a tile each costs 33 additions and
multiplications, about 0.26 cycles of a multiprocessor of an H100, its 8 bytes about 0.35 cycles of L2 bandwidth
(counted from data-sheet rates, not measured); and the table's length, a sum over crystals, would have to be read back
from the device. :math:`S_{ij}` and :math:`S_{ji}` have the phases in common but not :math:`\sigma`, so that one does
not give the other.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torch_geometric_crystal.ops.wave_vectors import WaveVectors

MIN_BLOCK = 16
"""Side of the smallest tile that tensor cores take."""

BLOCK_WAVES = 16
"""Waves of a tile. With more, the split products of the sum over waves fill the registers."""

TILES = {
    "forward": {16: (64, 2), 32: (32, 2), 64: (32, 2)},
    "rows": {16: (32, 2), 32: (16, 2), 64: (16, 4)},
    "columns": {16: (32, 2), 32: (16, 2), 64: (16, 2)},
    "columns with positions": {16: (16, 2), 32: (16, 2), 64: (16, 4)},
    "waves": {16: (16, 2), 32: (16, 4), 64: (16, 4)},
}
"""Of each kernel and padded head_dim the largest tile of atoms whose registers hardly spill, and the warps of the tile
of 16 atoms; larger tiles have four. Compiled for sm_80 and sm_90 in three dtypes, no kernel but "waves" spills more
than 24 bytes a thread, most of them nothing; "waves" spills up to 48 at head_dim 16 and 240 at 64."""

INVERSE_TURN: tl.constexpr = tl.constexpr(0.15915493667125702)
INVERSE_TURN_REST: tl.constexpr = tl.constexpr(6.420638327431063e-09)
"""1 / 2 pi in float32, and what is missing."""

ROUNDER: tl.constexpr = tl.constexpr(1.5 * 2.0**23)
"""A float32 less than 2^22 plus this minus this is the nearest whole number."""

NO_SPECIALIZATION = ["num_segments"]
"""Integers that differ from batch to batch and bring nothing where Triton compiles a kernel for their value."""


def launch_options(kernel: str, query: Tensor, waves: WaveVectors) -> dict[str, Any]:
    """Tiles, warps and stages of one of :data:`TILES`, for crystals of the mean size.

    Decided by shapes alone, so that nothing waits for the device and equal inputs always take equal sums.
    """
    head_dim = query.size(-1)
    block_dim = max(MIN_BLOCK, triton.next_power_of_2(head_dim))
    most, num_warps = TILES[kernel][min(block_dim, max(TILES[kernel]))]
    mean_atoms = waves.pos.size(0) // max(1, waves.atom_ptr.numel() - 1)
    atoms = min(most, max(MIN_BLOCK, triton.next_power_of_2(mean_atoms)))
    return {
        "HEAD_DIM": head_dim,
        "BLOCK_DIM": block_dim,
        "BLOCK_ATOMS": atoms,
        "BLOCK_WAVES": BLOCK_WAVES,
        "num_warps": num_warps if atoms == MIN_BLOCK else 4,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def num_slots(total: int, num_segments: int, block: int) -> int:
    """Programs that :func:`find_block` needs for `total` members in `num_segments` segments."""
    return total // block + num_segments


def rows_of(tensor: Tensor) -> Tensor:
    """`tensor` (N, H, d) itself if the numbers of each head lie side by side, else a copy for which that holds."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def device_of(tensor: Tensor) -> Any:
    """Context in which kernels are launched on the device of `tensor`."""
    return torch.cuda.device_of(tensor)


@triton.jit
def find_block(ptr, num_segments, slot, BLOCK: tl.constexpr):
    """The block of members of one segment that belongs to `slot`: segment, first member, end of the segment.

    Segment b has the members ``ptr[b] .. ptr[b + 1]``, and the slots from ``ptr[b] // BLOCK + b`` on: because
    floor(x + y) + 1 >= floor(x) + ceil(y), they never reach those of the next. Slots without members have first >= end.
    """
    low = 0
    high = num_segments
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(ptr + middle) // BLOCK + middle <= slot
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    begin = tl.load(ptr + low)
    first = begin + (slot - begin // BLOCK - low) * BLOCK
    return low, first, tl.load(ptr + low + 1)


@triton.jit
def members(first, end, BLOCK: tl.constexpr):
    """Which of `first`, `first` + 1, .. in a tile lie before `end`."""
    return tl.arange(0, BLOCK) < end - first


@triton.jit
def load_vectors(vectors, first, mask, BLOCK: tl.constexpr):
    """The three components of rows from `first` on of a contiguous (.., 3) tensor, zero where masked."""
    at = vectors + first * 3 + tl.arange(0, BLOCK) * 3
    return tl.load(at, mask, other=0.0), tl.load(at + 1, mask, other=0.0), tl.load(at + 2, mask, other=0.0)


@triton.jit
def load_positions(pos, first, mask, first_atom, BLOCK: tl.constexpr):
    """Positions relative to the first atom of the crystal: only differences matter, and smaller phases round less."""
    x, y, z = load_vectors(pos, first, mask, BLOCK)
    origin = pos + first_atom * 3
    return x - tl.load(origin), y - tl.load(origin + 1), z - tl.load(origin + 2)


@triton.jit
def load_waves(vector, first, end, first_wave, BLOCK: tl.constexpr):
    """Components of g, its square, and how often it counts: once if zero, else for -g too, and not at all past the end.

    The only zero is the first wave of a crystal.
    """
    mask = members(first, end, BLOCK)
    x, y, z = load_vectors(vector, first, mask, BLOCK)
    once = tl.arange(0, BLOCK) == first_wave - first
    return x, y, z, x * x + y * y + z * z, tl.where(mask, tl.where(once, 1.0, 2.0), 0.0)


@triton.jit
def turns(wave_component, position):
    """g x / 2 pi less a whole number, for one component, exact to a rounding of the result however large g x is.

    g / 2 pi is held as the sum of two float32 numbers, the product with the first is never rounded before the whole
    number is taken off (fused multiply-adds).
    """
    high = wave_component * INVERSE_TURN
    low = tl.fma(wave_component, INVERSE_TURN, -high) + wave_component * INVERSE_TURN_REST
    whole = (high * position + ROUNDER) - ROUNDER
    return tl.fma(low, position, tl.fma(high, position, -whole))


@triton.jit
def cos_sin(wave_x, wave_y, wave_z, x, y, z):
    """cos g.p and sin g.p to 3e-7, of shapes that broadcast.

    With t in turns, |t| <= 1/2, both are a polynomial in t^2 times their zeros: ``cos = (1 - 16 t^2) C(t^2)`` and
    ``sin = t (1 - 4 t^2) S(t^2)``, C and S interpolated at Chebyshev's points.
    """
    t = turns(wave_x, x) + turns(wave_y, y) + turns(wave_z, z)
    t = t - ((t + ROUNDER) - ROUNDER)
    u = t * t
    c = u * -0.41371685 + 1.6010159
    c = c * u - 3.6613865
    c = c * u + 5.1119032
    c = c * u - 3.7392056
    c = c * u + 1.0
    s = u * -0.78950655 + 3.5119131
    s = s * u - 9.623872
    s = s * u + 16.76915
    s = s * u - 16.208956
    s = s * u + 6.2831855
    return c * (1.0 - 16.0 * u), s * (1.0 - 4.0 * u) * t


@triton.jit
def matmul(a, b):
    """Product of float32 tiles on tensor cores, to float32 accuracy."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def row_phases(wave_x, wave_y, wave_z, length_sq, multiplicity, row_x, row_y, row_z, sigma_sq):
    """E cos a and E sin a, tiles (rows, waves)."""
    gaussian = tl.exp(sigma_sq[:, None] * length_sq[None, :] * -0.5) * multiplicity[None, :]
    cos, sin = cos_sin(
        wave_x[None, :], wave_y[None, :], wave_z[None, :], row_x[:, None], row_y[:, None], row_z[:, None]
    )  # fmt: skip
    return cos * gaussian, sin * gaussian


@triton.jit
def lattice_sums(
    row_x, row_y, row_z, sigma_sq, column_x, column_y, column_z, vector, first_wave, end_wave,
    BLOCK_ATOMS: tl.constexpr, BLOCK_WAVES: tl.constexpr,
):  # fmt: skip
    """A tile (rows, columns) of S."""
    total = tl.zeros([BLOCK_ATOMS, BLOCK_ATOMS], tl.float32)
    for start in range(first_wave, end_wave, BLOCK_WAVES):
        x, y, z, length_sq, multiplicity = load_waves(vector, start, end_wave, first_wave, BLOCK_WAVES)
        row_cos, row_sin = row_phases(x, y, z, length_sq, multiplicity, row_x, row_y, row_z, sigma_sq)
        cos, sin = cos_sin(
            x[:, None], y[:, None], z[:, None], column_x[None, :], column_y[None, :], column_z[None, :]
        )  # fmt: skip
        total += matmul(row_cos, cos) + matmul(row_sin, sin)
    return total


@triton.jit
def of_head(tensor, first, head, num_heads, BLOCK: tl.constexpr):
    """Where one head's numbers of the rows from `first` on of a contiguous (N, H) tensor lie."""
    return tensor + (first * num_heads + head) + tl.arange(0, BLOCK) * num_heads


@triton.jit
def load_heads(
    tensor, first, mask, head, row_stride, head_stride,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One head of the rows from `first` on of a tensor (N, H, d), float32, zero where masked."""
    column = tl.arange(0, BLOCK_DIM)
    at = tl.arange(0, BLOCK)[:, None] * row_stride + column[None, :]
    base = tensor + first * row_stride + head * head_stride
    return tl.load(base + at, mask[:, None] & (column < HEAD_DIM)[None, :], other=0.0).to(tl.float32)


@triton.jit
def store_heads(
    tensor, tile, first, mask, head, num_heads,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one head of the rows from `first` on of a contiguous tensor (N, H, d), in its own dtype."""
    column = tl.arange(0, BLOCK_DIM)
    at = tl.arange(0, BLOCK)[:, None] * (num_heads * HEAD_DIM) + column[None, :]
    base = tensor + (first * num_heads + head) * HEAD_DIM
    tl.store(base + at, tile.to(tensor.dtype.element_ty), mask[:, None] & (column < HEAD_DIM)[None, :])
