"""The cutoff of a crystal with its certificate, from its images some atoms at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from torch_geometric_crystal.ops.edge_stream import most_edges
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray
from torch_geometric_crystal.ops.neighbor_search import neighbor_pieces
from torch_geometric_crystal.ops.prepared_search import prepare_search
from torch_geometric_crystal.ops.truncation import certified_cutoff, clear_cutoff, truncation_bound


def streamed_certificate(
    data: Data,
    pbc: NDArray[np.bool_],
    count: FloatArray,
    radius: float,
    sigma_max: float,
    tol: float,
    spread: float,
    cutoff: float | None,
) -> tuple[float, float, FloatArray]:
    """What :class:`.infinite_neighborhood.InfiniteNeighborhood` stores beside the edges, in memory of O(atoms).

    Args:
        data: one crystal; the search runs on its device.
        pbc: its periodic directions (3,).
        count: (P, k + 1), see :mod:`.truncation`.
        radius: explicit radius to begin with, A.
        sigma_max: upper bound of sigma, A.
        tol: tolerated share of a row.
        spread: allowance for the spread of the logits within a row.
        cutoff: a given one, A, or None for the one that the tolerance asks for.

    Returns:
        Cutoff in A, the largest that any piece asks for; the largest certified share that a row loses; and the
        logarithm of each row's tail (N,).
    """
    while True:
        asked = [
            certified_cutoff(row, dist, num_rows, radius, count, sigma_max, tol, spread, data.num_nodes)
            if cutoff is None
            else clear_cutoff(dist, cutoff, sigma_max)
            for row, dist, num_rows in _images(data, pbc, radius)
        ]
        certified = [chosen for chosen in asked if chosen is not None]
        if len(certified) == len(asked):
            break
        radius += 0.5 * sigma_max
    parts = [
        truncation_bound(row, dist, num_rows, radius, count, sigma_max, max(certified), spread, data.num_nodes)
        for row, dist, num_rows in _images(data, pbc, radius)
    ]
    shares, log_tails = zip(*parts, strict=True)
    return max(certified), max(float(share.max()) for share in shares), np.concatenate(log_tails)


def _images(data: Data, pbc: NDArray[np.bool_], radius: float) -> Iterator[tuple[IntArray, FloatArray, int]]:
    """Centre (counted from the first of the piece) and distance of all images of some atoms, and how many atoms."""
    periodic = torch.from_numpy(pbc).unsqueeze(0).to(data.pos.device)
    search = prepare_search(data.pos, data.cell, torch.zeros_like(data.z), periodic, radius)
    for first, last, edges in neighbor_pieces(search, most_edges(data.pos.device), torch.float64):
        yield (edges.edge_index[1] - first).cpu().numpy(), edges.edge_dist.cpu().numpy(), last - first
