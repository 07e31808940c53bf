"""The atoms of a batch of crystals made ready for a search: wrapped into reduced cells, and in bins."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.atom_bins import Bins, combine, fill_bins, plan_bins
from torch_geometric_crystal.ops.batched_lattices import reduce_lattices
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray


class PreparedSearch(NamedTuple):
    """Atoms wrapped into the cells of the reduced bases, and in bins. Axes come first.

    Attributes:
        bins: the bins; ``bins.order`` lists the atoms so that those near each other in space are near in it.
        counts: atoms of each crystal (B,), on the host.
        crystal: crystal of each atom (N,).
        pos: wrapped positions (3, N), float64, A.
        pos_in_bins: the same, in the order of the bins.
        wrap: reduced cell that each atom lies in (3, N), int64.
        basis: reduced vectors (3, 3, B), the vectors first, A.
        transform: integers from the reduced basis to the cell's own (3, 3, B).
        cutoff: (B,), A.
    """

    bins: Bins
    counts: IntArray
    crystal: Tensor
    pos: Tensor
    pos_in_bins: Tensor
    wrap: Tensor
    basis: Tensor
    transform: Tensor
    cutoff: Tensor


def prepare_search(pos: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor, cutoff: float | Tensor) -> PreparedSearch:
    """Check the arguments of :func:`.neighbor_search.neighbor_search`, and put the atoms, one at least, into bins."""
    check_shapes(pos, cell, batch, pbc, cutoff)
    place = torch.device("cpu") if pos.device.type == "mps" else pos.device
    pos, crystal = pos.detach().to(place), batch.to(place)
    host = _read(pos, cell.to(place), crystal, pbc.to(place), cutoff)
    lattices = reduce_lattices(host.cell, host.pbc)
    arrays: list[NDArray] = [
        array.transpose(1, 2, 0) for array in (lattices.basis, lattices.transform, np.linalg.inv(lattices.basis))
    ]
    arrays += [lattices.periodic.T, host.cutoff]
    tensors = (torch.from_numpy(np.ascontiguousarray(array)).to(pos.device) for array in arrays)
    basis, transform, inverse, periodic, cutoffs = tensors
    pos = pos.double().T.contiguous()
    coordinates = combine(pos, inverse, crystal)
    wrap = torch.where(periodic[:, crystal], coordinates.floor(), 0.0)
    pos, coordinates = pos - combine(wrap, basis, crystal), coordinates - wrap
    plan = plan_bins(lattices, host.cutoff, host.counts, *_bounds(coordinates, crystal, lattices.periodic))
    bins = fill_bins(plan, lattices.periodic, coordinates, crystal)
    return PreparedSearch(
        bins, host.counts, crystal, pos, pos[:, bins.order], wrap.long(), basis, transform, cutoffs
    )  # fmt: skip


def for_kernels(search: PreparedSearch) -> tuple[list[Tensor], list[Tensor]]:
    """What belongs to the atoms and what to the crystals, in the order of the kernels."""
    bins = search.bins
    atoms = [
        search.pos, search.pos_in_bins, bins.to_centre, bins.place, search.wrap, search.crystal, bins.order, bins.start,
    ]  # fmt: skip
    crystals = [
        search.basis, bins.edges, bins.number, bins.steps, search.transform, bins.periodic,
        search.cutoff, bins.reach, bins.first_bin,
    ]  # fmt: skip
    return [tensor.contiguous() for tensor in atoms], [tensor.contiguous() for tensor in crystals]


def check_shapes(pos: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor, cutoff: float | Tensor) -> None:
    """Raise ``ValueError`` unless the shapes of the arguments of a search agree."""
    check_shape("pos", pos, (None, 3))
    check_shape("cell", cell, (None, 3, 3))
    check_shape("batch", batch, (pos.size(0),))
    check_shape("pbc", pbc, (cell.size(0), 3))
    if isinstance(cutoff, Tensor) and cutoff.dim():
        check_shape("cutoff", cutoff, (cell.size(0),))


class _Crystals(NamedTuple):
    """What the host has to know of the batch: arrays of length B."""

    cell: FloatArray
    pbc: NDArray[np.bool_]
    cutoff: FloatArray
    counts: IntArray


def _read(pos: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor, cutoff: float | Tensor) -> _Crystals:
    """Check the numbers and bring those of the crystals to the host, at once."""
    num_crystals, double = cell.size(0), torch.float64
    ends = torch.searchsorted(batch, torch.arange(num_crystals + 1, device=batch.device))
    in_order = (batch[1:] >= batch[:-1]).all() & (batch[0] >= 0) & (batch[-1] < num_crystals)
    radius = torch.as_tensor(cutoff, device=cell.device, dtype=double).detach().expand(num_crystals)
    fields = [
        in_order.reshape(1), pos.isfinite().all().reshape(1), cell.detach().flatten(), pbc.flatten(), radius, ends
    ]  # fmt: skip
    sizes = [field.numel() for field in fields]
    ordered, finite, cells, periodic, cutoffs, last = np.split(
        torch.cat([field.to(double) for field in fields]).cpu().numpy(), np.cumsum(sizes)[:-1]
    )
    check_argument(bool(ordered[0]), "batch", f"crystals 0 .. {num_crystals - 1} in ascending order", "others")
    check_argument(bool(finite[0]), "pos", "finite numbers", "nan or infinity")
    check_argument(bool(np.isfinite(cells).all()), "cell", "finite numbers", "nan or infinity")
    good = np.isfinite(cutoffs) & (cutoffs >= 0.0)
    check_argument(bool(good.all()), "cutoff", "finite lengths >= 0 in A", cutoffs[~good].tolist())
    return _Crystals(cells.reshape(-1, 3, 3), periodic.reshape(-1, 3) > 0.0, cutoffs, np.diff(last).astype(np.int64))


def _bounds(coordinates: Tensor, crystal: Tensor, periodic: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Least and largest coordinate (3, N) of each crystal's atoms (B, 3), where some direction does not repeat."""
    zeros = np.zeros(periodic.shape)
    if periodic.all():
        return zeros, zeros
    index = crystal.expand_as(coordinates)
    table = coordinates.new_zeros(periodic.T.shape)
    lowest = table.scatter_reduce(1, index, coordinates, "amin", include_self=False)
    highest = table.scatter_reduce(1, index, coordinates, "amax", include_self=False)
    both = torch.stack([lowest.T, highest.T]).cpu().numpy()
    return both[0], both[1]
