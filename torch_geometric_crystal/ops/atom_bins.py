"""Bins of space for the neighbour search: how each crystal of a batch is cut, and which bins lie near which."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_geometric_crystal.ops.batched_lattices import BatchedLattices
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray
from torch_geometric_crystal.ops.segment import segment_index

ATOMS_PER_BIN = 2.0
"""Least average number of atoms in a bin: so there are at most half as many bins as atoms."""

_SLACK = 1e-6
"""Relative allowance for rounding where an atom lies on the wall of a bin. Bins only propose candidates."""

_DIAGONALS = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])


class BinPlan(NamedTuple):
    """Each crystal's space cut into equal parallelepipeds along its reduced vectors. Arrays on the host.

    Attributes:
        origin: lowest coordinate along each basis vector, 0 where it repeats (B, 3).
        extent: length cut into bins, in units of the basis vector, 1 where it repeats (B, 3).
        number: bins along each vector (B, 3).
        edges: edges of a bin as rows (B, 3, 3), A.
        reach: an atom's neighbours lie in bins whose centres are at most so far from it (B,), A.
        steps: they are at most so many bins away along each vector (B, 3).
    """

    origin: FloatArray
    extent: FloatArray
    number: IntArray
    edges: FloatArray
    reach: FloatArray
    steps: IntArray

    def first_bin(self) -> IntArray:
        """Number of each crystal's first bin, and of all bins, (B + 1,)."""
        return np.concatenate([[0], self.number.prod(axis=1).cumsum()])

    def stencil_size(self) -> IntArray:
        """Bins within `steps` of one, (B,)."""
        return (2 * self.steps + 1).prod(axis=1)


def plan_bins(
    lattices: BatchedLattices, cutoff: FloatArray, counts: IntArray, lowest: FloatArray, highest: FloatArray
) -> BinPlan:
    """Choose bins of half the cutoff, or larger ones where atoms are sparse.

    Args:
        lattices: of the B crystals.
        cutoff: (B,), A.
        counts: atoms (B,).
        lowest: least coordinate of the atoms along the directions that do not repeat (B, 3), A.
        highest: largest (B, 3), A.
    """
    periodic = lattices.periodic
    heights = np.where(periodic, 1.0 / np.linalg.norm(np.linalg.inv(lattices.basis), axis=1), 1.0)
    origin = np.where(periodic, 0.0, lowest)
    extent = np.where(periodic, 1.0, np.maximum(highest - lowest, 1.0))
    span = heights * extent
    width = np.maximum(0.5 * cutoff, _width_for_density(span, counts))[:, None] * (1.0 + 10.0 * _SLACK)
    number = np.maximum(np.floor(span / width), 1.0)
    edges = lattices.basis * (extent / number)[..., None]
    half_diagonal = 0.5 * np.linalg.norm(_DIAGONALS @ edges, axis=2).max(axis=1)
    steps = np.ceil(cutoff[:, None] * number / span + _SLACK)
    steps = np.where(periodic, steps, np.minimum(steps, number - 1.0))
    return BinPlan(
        origin,
        extent,
        number.astype(np.int64),
        edges,
        (cutoff + half_diagonal) * (1.0 + _SLACK),
        steps.astype(np.int64),
    )


def _width_for_density(span: FloatArray, counts: IntArray) -> FloatArray:
    """Width (B,) at which there are at most counts / ATOMS_PER_BIN bins, or one, in a box of any proportions.

    With the sides in falling order and w >= (a s_1 .. s_d / n)^(1/d) for d = 1, 2, 3 there are at most n / a bins,
    whichever number of sides is longer than w.
    """
    sides = -np.sort(-span, axis=1)
    volumes = ATOMS_PER_BIN * sides.cumprod(axis=1) / np.maximum(counts, 1)[:, None]
    width: FloatArray = (volumes ** (1.0 / np.arange(1, 4))).max(axis=1)
    return width


class Bins(NamedTuple):
    """The plan as tensors, and the atoms in the order of their bins. Axes come first: gathers of numbers are fast.

    Attributes:
        plan: the same on the host.
        periodic: which rows of the bases repeat (3, B).
        number: bins along each vector (3, B).
        steps: how far a stencil reaches, in bins (3, B).
        edges: edges of a bin (3, 3, B), the vectors first, A.
        reach: squared (B,), A^2.
        stencil_size: (B,).
        first_bin: (B,).
        place: bin of each atom along each vector (3, N).
        to_centre: from each atom to the centre of its bin (3, N), A.
        start: atoms of bin m are ``order[start[m]:start[m + 1]]``.
        order: (N,).
    """

    plan: BinPlan
    periodic: Tensor
    number: Tensor
    steps: Tensor
    edges: Tensor
    reach: Tensor
    stencil_size: Tensor
    first_bin: Tensor
    place: Tensor
    to_centre: Tensor
    start: Tensor
    order: Tensor


def fill_bins(plan: BinPlan, periodic: NDArray[np.bool_], coordinates: Tensor, crystal: Tensor) -> Bins:
    """Sort atoms into bins.

    Args:
        plan: the bins.
        periodic: rows of the bases that repeat (B, 3).
        coordinates: of the atoms in their crystal's basis (3, N), within 0 .. 1 where it repeats.
        crystal: crystal of each atom (N,).
    """
    first = plan.first_bin()
    arrays: list[NDArray] = [periodic.T, plan.number.T, plan.steps.T, plan.edges.transpose(1, 2, 0), plan.origin.T]
    arrays += [(plan.number / plan.extent).T, plan.reach**2, plan.stencil_size(), first[:-1]]
    tensors = (torch.from_numpy(np.ascontiguousarray(array)).to(coordinates.device) for array in arrays)
    is_periodic, number, steps, edges, origin, scale, reach, stencil_size, first_bin = tensors
    scaled = (coordinates - origin[:, crystal]) * scale[:, crystal]
    place = torch.minimum(scaled.floor().long().clamp_(min=0), number[:, crystal] - 1)
    to_centre = combine(place + 0.5 - scaled, edges, crystal)
    member = torch.zeros_like(crystal)
    for axis in range(3):
        member = member * number[axis][crystal] + place[axis]
    member, order = (member + first_bin[crystal]).sort(stable=True)
    start = torch.searchsorted(member, torch.arange(int(first[-1]) + 1, device=member.device))
    return Bins(
        plan, is_periodic, number, steps, edges, reach, stencil_size, first_bin, place, to_centre, start, order
    )  # fmt: skip


def stencils(bins: Bins, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Steps (3, S) to the bins near a bin, and vectors (3, S) between their centres, of crystals first .. last - 1."""
    total = int(bins.plan.stencil_size()[first:last].sum())
    sizes = bins.stencil_size[first:last]
    owner = segment_index(sizes, total)
    rest = torch.arange(total, device=owner.device) - (sizes.cumsum(0) - sizes)[owner]
    owner = owner + first
    steps = rest.new_empty(3, total)
    for axis in (2, 1, 0):
        reach = bins.steps[axis][owner]
        width = 2 * reach + 1
        steps[axis] = rest % width - reach
        rest = rest.div(width, rounding_mode="floor")
    return steps, combine(steps.double(), bins.edges, owner)


def combine(coefficients: Tensor, rows: Tensor, owner: Tensor) -> Tensor:
    """Sum of the rows (3, 3, B) of each one's owner (E,) with coefficients (3, E), always in the same order."""
    columns = []
    for column in range(3):
        total = coefficients[0] * rows[0, column].index_select(0, owner)
        for row in (1, 2):
            total = total + coefficients[row] * rows[row, column].index_select(0, owner)
        columns.append(total)
    return torch.stack(columns)
