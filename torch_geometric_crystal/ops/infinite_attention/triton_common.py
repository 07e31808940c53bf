# mypy: allow-untyped-defs, allow-incomplete-defs
"""What the fused kernels of infinite attention share: tile shapes, the tile loop's loads, split products, the basis.

A row's edges are taken in order of pairs: *slot* s of the graph is edge ``pair_order[s]``, and the pairs p of a chunk,
which are consecutive, own consecutive slots. A kernel walks over

    for each chunk of PAIRS pairs of the row:     per pair: k_j and v_j are read, q.k and the like computed (PAIRS, H)
        for each tile of SLOTS slots:             per slot: distance, exponentials, basis, products on tensor cores

so that whatever belongs to a pair is done once, however many images it has, and no slot is wasted on padding pairs to
equal length: only the last tile of a chunk is partly empty. What a slot needs of its pair is gathered from the (PAIRS,
H) table; what a pair sums over its slots is a product with the zeros and ones of "slot s belongs to pair p".
"""

import math
from typing import NamedTuple

import triton
import triton.language as tl

from torch_geometric_crystal.ops.radial_basis import GaussianBasis

LOG_2: tl.constexpr = tl.constexpr(math.log(2.0))


class TileShape(NamedTuple):
    """Tile sizes of the kernels, each a power of two, and warps per program.

    Attributes:
        heads: heads of one program.
        dim: head_dim, padded.
        basis: number of basis functions, padded.
        pairs: pairs of a chunk.
        scan: slots of a tile where only logits are needed.
        slots: slots of a tile where basis and products are.
        num_warps: warps of a program.
    """

    heads: int
    dim: int
    basis: int
    pairs: int
    scan: int
    slots: int
    num_warps: int


def tile_shape(num_heads: int, head_dim: int, num_basis: int, basis_values: int) -> TileShape:
    """The one place to tune: a fixed function of the sizes, so that equal inputs always take equal sums.

    A warp holds up to 2,048 elements of k or v (64 registers a thread), and `basis_values` basis values of as many
    slots as that makes. Larger heads and bases get more warps.
    """
    dim, basis = triton.next_power_of_2(head_dim), max(16, triton.next_power_of_2(num_basis))
    heads, pairs = min(triton.next_power_of_2(num_heads), 16), 16
    while heads > 8 and heads * dim > 256:
        heads //= 2
    num_warps = min(max(1, pairs * heads * dim // 2048, heads * basis // 512, basis // 64), 4)
    slots = min(max(16, basis_values * num_warps // basis), 32 * num_warps)
    return TileShape(heads, dim, basis, pairs, scan=64, slots=slots, num_warps=num_warps)


def basis_scales(basis: GaussianBasis | None) -> tuple[int, float, float]:
    """Number of basis functions and the two scales that :func:`gaussians` takes; zeros without a basis."""
    if basis is None:
        return 0, 0.0, 0.0
    step = math.sqrt(0.5 * math.log2(math.e))
    return basis.num, step / basis.spacing, step


@triton.jit
def load_vectors(base, offset, used, EXACT: tl.constexpr):
    """Vectors as float32, zero where not `used`; EXACT promises that all are, and leaves the mask out."""
    vectors = tl.load(base + offset) if EXACT else tl.load(base + offset, mask=used, other=0.0)
    return vectors.to(tl.float32)


@triton.jit
def load_chunk(first_pair, end, pair_source, pair_ptr, PAIRS: tl.constexpr):
    """The chunk from `first_pair`, of PAIRS pairs or what is left to `end`: source atoms (PAIRS,), first slot, slots.

    Where fewer are left the last is repeated. No slot belongs to the repetitions, so that they add nothing.
    """
    count = tl.minimum(end - first_pair, PAIRS).to(tl.int32)
    local = tl.minimum(tl.arange(0, PAIRS), count - 1)
    source = tl.load(pair_source + first_pair + local).to(tl.int32).to(tl.int64)
    first_slot = tl.load(pair_ptr + first_pair)
    num_slots = tl.load(pair_ptr + first_pair + count) - first_slot
    return source, first_slot, num_slots.to(tl.int32)


@triton.jit
def load_slots(first, count, first_slot, first_pair, pair_order, edge_pair, dist, far, SLOTS: tl.constexpr):
    """Slots `first`, first + 1, ... of the `count` of a chunk that starts at `first_slot`.

    Returns each one's edge, whether there is one, its distance, else `far`, and its pair counted from `first_pair`.
    """
    slot = first + tl.arange(0, SLOTS)
    valid = slot < count
    edge = tl.load(pair_order + first_slot + slot, mask=valid, other=0)
    r = tl.load(dist + edge, mask=valid, other=far)
    member = tl.load(edge_pair + edge, mask=valid, other=first_pair) - first_pair
    return edge, valid, r, member.to(tl.int32)


@triton.jit
def to_slots(table, member, SLOTS: tl.constexpr, HEADS: tl.constexpr):
    """Give each slot the entry of its pair: (PAIRS, HEADS) to (SLOTS, HEADS)."""
    return tl.gather(table, tl.broadcast_to(member[:, None], (SLOTS, HEADS)), 0)


@triton.jit
def membership(member, PAIRS: tl.constexpr):
    """One where slot s belongs to pair p, else zero: (PAIRS, SLOTS)."""
    return (tl.arange(0, PAIRS)[:, None] == member[None, :]).to(tl.float32)


@triton.jit
def load_basis(base, head_stride, head, HEADS: tl.constexpr, BASIS: tl.constexpr, TILE_BASIS: tl.constexpr):
    """Load a (TILE_BASIS, TILE_HEADS) tile from `base`, where heads are `head_stride` apart; zero beyond H and K."""
    k = tl.arange(0, TILE_BASIS)
    mask = (head < HEADS)[None, :] & (k < BASIS)[:, None]
    return tl.load(base + (head * head_stride)[None, :] + k[:, None], mask=mask, other=0.0)


@triton.jit
def store_basis(base, u, head, HEADS: tl.constexpr, BASIS: tl.constexpr, TILE_BASIS: tl.constexpr):
    """Store a (TILE_BASIS, TILE_HEADS) tile to the row (H, K) at `base`."""
    k = tl.arange(0, TILE_BASIS)
    tl.store(base + head[None, :] * BASIS + k[:, None], u, mask=(head < HEADS)[None, :] & (k < BASIS)[:, None])


@triton.jit
def gaussians(r, centre, sharpness):
    """Basis values exp2(-t^2) and t = sharpness r - centre, in the shape that r and centre broadcast to.

    With sharpness = sqrt(log2(e) / 2) / c and centres k sqrt(log2(e) / 2) these are exp(-(r - k c)^2 / (2 c^2)).
    """
    t = r * sharpness - centre
    return tl.exp2(-t * t), t


@triton.jit
def leading_bits(x):
    """x cut to the 11 leading bits that a tf32 product reads; the rest, x minus this, is exact in float32."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def split_product(a, b, total):
    """total + a @ b on tensor cores, to 21 bits: three tf32 products of the operands' leading and remaining bits."""
    a_high = leading_bits(a)
    b_high = leading_bits(b)
    total = tl.dot(a - a_high, b_high, total, input_precision="tf32")
    total = tl.dot(a_high, b - b_high, total, input_precision="tf32")
    return tl.dot(a_high, b_high, total, input_precision="tf32")


@triton.jit
def sum_by_pair(belongs, values, total):
    """total + belongs @ values: the sums over each pair's slots. Zeros and ones are exact in tf32: two products do."""
    high = leading_bits(values)
    total = tl.dot(belongs, values - high, total, input_precision="tf32")
    return tl.dot(belongs, high, total, input_precision="tf32")
