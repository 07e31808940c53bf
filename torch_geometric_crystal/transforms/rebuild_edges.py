"""The graph of crystals that move: edges rewritten on any device, at the cutoff that each crystal has."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.data.neighbors import periodic_images
from torch_geometric_crystal.ops.lattice import count_polynomials, edge_vectors, gram_schmidt_lengths, reduce_lattice
from torch_geometric_crystal.ops.neighbor_search import NeighborEdges, neighbor_search, sort_by_pair
from torch_geometric_crystal.ops.truncation import search_radius_for_cutoff, truncation_bound
from torch_geometric_crystal.transforms.graph_fields import REAL_FIELDS, remove_fields
from torch_geometric_crystal.transforms.infinite_neighborhood import DEFAULT_SIGMA_MAX, DEFAULT_SPREAD
from torch_geometric_crystal.transforms.merging import refuse_merged

_STALE = (*(name for name in REAL_FIELDS if name != "edge_cutoff"), "wave_bound")


class RebuildEdges(BaseTransform):
    r"""Rewrite the edges of crystals whose atoms or cells have moved: in relaxation, molecular dynamics, screening.

    Takes one crystal or a batch, on any device, that has a graph of
    :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood`, and sets `edge_index`, `edge_shift` and
    `edge_dist` to all images within the `edge_cutoff` that each crystal has, the self images included, sorted by
    target, source and distance (:func:`~torch_geometric_crystal.ops.neighbor_search.neighbor_search`). Where `pos` or
    `cell` require gradients the models compute the distances anew from them, so forces and stress are those of a graph
    made afresh with that cutoff. A crystal with a cutoff of 0, which is summed over waves, has no edges and gets none.

    The cutoff stays, so the certificate of the old positions no longer holds: `truncation_bound` and `log_tail` are
    removed, and where they are wanted, not at each step, :func:`certify_edges` makes them anew. Wave vectors stay: they
    are integers, and follow the cell; `wave_bound`, which depends on the cell, is removed, and comes back with a graph
    made afresh.

    With a skin s the search goes to :math:`R + s`, and its list is filtered until it could miss an image. With the
    cell then and now :math:`L_0` and :math:`L = L_0 F`, and what is left of an atom's motion
    :math:`\mathbf{u}_i = \mathbf{p}_i - \mathbf{p}^0_i F - \bar{\mathbf{u}}`, an image that was beyond :math:`R + s` is
    now at least :math:`(1 - \Vert F - 1 \Vert)(R + s) - 2 \max |\mathbf{u}_i|` away; the list is used while this is at
    least R in every crystal. In a fixed cell that is the usual rule: no atom has moved by more than s / 2. The batch is
    the same one while atoms, crystals, cutoffs and periodic directions are.

    Args:
        skin (float): s in A. (default: `0`: search each time)

    Attributes:
        num_searches (int): searches so far.

    Raises:
        ValueError: if `skin` is negative or not finite, the graph is missing, or atoms are merged.
    """

    def __init__(self, skin: float = 0.0):
        check_argument(0.0 <= skin < math.inf, "skin", "a length >= 0 in A", skin)
        self.skin = skin
        self.num_searches = 0
        self._list: _VerletList | None = None

    def forward(self, data: Data) -> Data:
        """Return `data` with the edges of its positions and cells."""
        crystals = _crystals(data)
        edges = self._search(crystals, crystals.cutoff) if self.skin == 0.0 else self._filter(crystals)
        remove_fields(data, _STALE)
        data.edge_index, data.edge_shift, data.edge_dist = edges
        if hasattr(data, "_slice_dict"):
            counts = torch.bincount(crystals.batch[edges.edge_index[1]], minlength=len(crystals.cell)).cpu()
            slices = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            fresh = dict.fromkeys(("edge_index", "edge_shift", "edge_dist"), slices)
            data._slice_dict = {**data._slice_dict, **fresh}
        return data

    def _search(self, crystals: "_Crystals", cutoff: Tensor) -> NeighborEdges:
        self.num_searches += 1
        edges = neighbor_search(crystals.pos, crystals.cell, crystals.batch, crystals.pbc, cutoff)
        if bool((cutoff > 0.0).all()):
            return edges
        kept = (cutoff > 0.0)[crystals.batch[edges.edge_index[1]]]  # at a cutoff of 0 it finds the atoms themselves
        return NeighborEdges(edges.edge_index[:, kept], edges.edge_shift[kept], edges.edge_dist[kept])

    def _filter(self, crystals: "_Crystals") -> NeighborEdges:
        if self._list is None or not self._list.holds(crystals, self.skin):
            self._list = _VerletList(
                crystals, self._search(crystals, crystals.cutoff + self.skin * (crystals.cutoff > 0.0))
            )
        listed = self._list.edges
        vectors = edge_vectors(
            crystals.pos.double(), crystals.cell.double(), listed.edge_index, listed.edge_shift, crystals.batch
        )
        dist = vectors.norm(dim=1)
        near = (dist <= crystals.cutoff[crystals.batch[listed.edge_index[1]]]).nonzero().squeeze(1)
        (source, target), dist = listed.edge_index[:, near], dist[near].to(crystals.pos.dtype)
        order = sort_by_pair(dist, target * len(crystals.pos) + source)
        near = near[order]
        return NeighborEdges(listed.edge_index[:, near], listed.edge_shift[near], dist[order])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(skin={self.skin:g})"


def certify_edges(data: Data, sigma_max: float = DEFAULT_SIGMA_MAX, spread: float = DEFAULT_SPREAD) -> Data:
    """Return `data` with `truncation_bound` (B,) and `log_tail` (N,) of its present positions, at its `edge_cutoff`.

    They mean what those of :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood` mean, and cost as much:
    one crystal after the other, on the CPU. A crystal with a cutoff of 0, which is summed over waves, lacks no edges.

    Args:
        data: one crystal or a batch with `edge_cutoff`.
        sigma_max: upper bound of sigma in A, as the graph was made with.
        spread: allowance for the spread of the logits, as the graph was made with.

    Raises:
        ValueError: if `edge_cutoff` is missing, or atoms are merged.
    """
    crystals = _crystals(data)
    cells, pbcs, cutoffs = (tensor.cpu().numpy() for tensor in (crystals.cell.double(), crystals.pbc, crystals.cutoff))
    counts = torch.bincount(crystals.batch, minlength=len(cells)).tolist()
    positions = np.split(crystals.pos.cpu().double().numpy(), np.cumsum(counts)[:-1])
    shares, tails = [], []
    for pos, cell, pbc, cutoff in zip(positions, cells, pbcs, cutoffs.tolist(), strict=True):
        if cutoff == 0.0:
            shares.append(0.0)
            tails.append(np.full(len(pos), -np.inf))
            continue
        lattice = reduce_lattice(cell, pbc)
        lengths = gram_schmidt_lengths(lattice.basis)
        polynomials = count_polynomials(lengths)
        volume = float(lengths.prod()) if pbc.all() else math.inf
        radius = search_radius_for_cutoff(polynomials, len(pos), volume, sigma_max, cutoff)
        images = periodic_images(pos, lattice, radius)
        share, log_tail = truncation_bound(
            images.target, images.dist, len(pos), radius, polynomials, sigma_max, cutoff, spread
        )
        shares.append(share.max())
        tails.append(log_tail)
    device = data.pos.device
    data.truncation_bound = torch.from_numpy(np.array(shares)).to(device)
    data.log_tail = torch.from_numpy(np.concatenate(tails)).to(device)
    return data


class _Crystals(NamedTuple):
    """What decides the edges, detached: as in `neighbor_search`, with the cutoff of each crystal (B,)."""

    pos: Tensor
    cell: Tensor
    batch: Tensor
    pbc: Tensor
    cutoff: Tensor


def _crystals(data: Data) -> _Crystals:
    if "edge_cutoff" not in data:
        raise ValueError("data: expected crystals with edge_cutoff; apply model.neighborhood() to each before batching")
    refuse_merged(data, "where edges are made anew")
    batch = data.batch if isinstance(data, Batch) or data.get("batch") is not None else torch.zeros_like(data.z)
    pbc = data.pbc if data.get("pbc") is not None else data.cell.new_ones(len(data.cell), 3, dtype=torch.bool)
    return _Crystals(data.pos.detach(), data.cell.detach(), batch, pbc, data.edge_cutoff.flatten().double())


class _VerletList:
    """Edges within cutoff + skin of the positions and cells at which they were searched."""

    def __init__(self, crystals: _Crystals, edges: NeighborEdges):
        self.edges = edges
        copies = (crystals.pos.double().clone(), crystals.cell.double().clone(), *(t.clone() for t in crystals[2:]))
        self.crystals = _Crystals(*copies)
        self.inverse = torch.linalg.pinv(_periodic_rows(self.crystals))

    def holds(self, crystals: _Crystals, skin: float) -> bool:
        """Whether no image within the cutoff can be missing."""
        then = self.crystals
        if any(now.shape != old.shape or now.device != old.device for now, old in zip(crystals, then, strict=True)):
            return False
        same = torch.stack([(now == old).all() for now, old in zip(crystals[2:], then[2:], strict=True)]).all()
        now = crystals._replace(pos=crystals.pos.double(), cell=crystals.cell.double())
        change = self.inverse @ (_periodic_rows(now) - _periodic_rows(then))  # F - 1
        moved = now.pos - then.pos - torch.einsum("na,nab->nb", then.pos, change[then.batch])
        sums = torch.zeros_like(now.cell[:, 0]).index_add_(0, then.batch, moved)
        atoms = torch.zeros_like(then.cutoff).index_add_(0, then.batch, torch.ones_like(moved[:, 0]))
        motion = (moved - (sums / atoms.clamp(min=1.0).unsqueeze(1))[then.batch]).norm(dim=1)
        largest = torch.zeros_like(then.cutoff).scatter_reduce(0, then.batch, motion, "amax")
        nearest = (1.0 - change.norm(dim=(1, 2))) * (then.cutoff + skin) - 2.0 * largest
        return bool(same & (nearest >= then.cutoff).all())


def _periodic_rows(crystals: _Crystals) -> Tensor:
    return torch.where(crystals.pbc.unsqueeze(-1), crystals.cell, 0.0)
