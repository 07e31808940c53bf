"""Attention weight against distance: histograms and means."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.explain.attention_map import AttentionMap, FloatArray, check_image_weights, sum_by_index

DEFAULT_EDGES = tuple(0.1 * step for step in range(121))


@dataclass(frozen=True)
class DistanceProfile:
    """How the weight of an atom is spread over distances, mean over atoms; NaN in heads of reciprocal space.

    Args:
        edges: of the bins (B + 1,), A.
        share: weight in each bin, the atom itself apart (L, H, B).
        decay_share: the same if all q.k were equal (L, H, B).
        self_share: weight on the atom itself (L, H). With `share` it sums to one where the bins hold all images.
        images: mean number of images in each bin (B,).
        num_atoms: number of atoms that the means are over.
    """

    edges: FloatArray
    share: FloatArray
    decay_share: FloatArray
    self_share: FloatArray
    images: FloatArray
    num_atoms: int

    @property
    def centers(self) -> FloatArray:
        """Middle of each bin (B,), A."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])


def weight_by_distance(maps: Sequence[AttentionMap], edges: Sequence[float] = DEFAULT_EDGES) -> DistanceProfile:
    """Histogram of distances weighted by attention, mean over all atoms of all maps.

    Args:
        maps: of one model.
        edges: of the bins, A, rising.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
        ValueError: if the edges do not rise, or the maps are of different models.
    """
    check_image_weights(maps)
    bounds = np.asarray(edges, dtype=np.float64)
    check_argument(bounds.size >= 2 and bool((np.diff(bounds) > 0).all()), "edges", "two or more rising lengths", edges)
    shape = (*maps[0].weights.shape[:2], bounds.size - 1)
    share, decay_share, images = np.zeros(shape), np.zeros(shape), np.zeros(shape[-1:])
    for each in maps:
        place = np.searchsorted(bounds, each.dist, side="right") - 1
        counted = (place >= 0) & (place < shape[-1]) & ~each.is_self
        place = place[counted]
        images += np.bincount(place, minlength=shape[-1])
        share += sum_by_index(each.weights[..., counted], place, shape[-1])
        decay_share += sum_by_index(each.decay_weights[..., counted], place, shape[-1])
    number = sum(each.num_atoms for each in maps)
    blank = np.where(maps[0].has_image_weights, 1.0, np.nan)[..., None] / number
    return DistanceProfile(bounds, share * blank, decay_share * blank, self_share(maps), images / number, number)


def self_share(maps: Sequence[AttentionMap]) -> FloatArray:
    """Weight of an atom on its own place, mean over atoms (L, H)."""
    check_image_weights(maps)
    return per_atom([each.sum_by_target(each.weights * each.is_self) for each in maps]).mean(-1)


def mean_distance(maps: Sequence[AttentionMap], decay_only: bool = False) -> FloatArray:
    """Mean distance of the weight that is not on the atom itself (L, H), A.

    It is the sum of w r over the sum of w, over all atoms; NaN in heads of reciprocal space, and where no atom has
    another image in its range.

    Args:
        maps: of one model.
        decay_only: take the weights that equal q.k would give.
    """
    check_image_weights(maps)
    chosen = [(each.decay_weights if decay_only else each.weights) * ~each.is_self for each in maps]
    moment = np.sum([(weights * each.dist).sum(-1) for weights, each in zip(chosen, maps, strict=True)], axis=0)
    total = np.sum([weights.sum(-1) for weights in chosen], axis=0)
    return np.where(total > 0, moment / np.where(total > 0, total, 1.0), np.nan)


def weight_moved_by_dot_products(maps: Sequence[AttentionMap]) -> FloatArray:
    """Share of an atom's weight that q.k moves from one image to another, mean over atoms (L, H).

    It is half of the sum of the absolute differences to the weights that equal q.k would give: 0 where distance alone
    decides, 1 where none of these weights stays in its place.
    """
    check_image_weights(maps)
    differences = [np.abs(each.weights - each.decay_weights) for each in maps]
    return per_atom([0.5 * each.sum_by_target(part) for each, part in zip(maps, differences, strict=True)]).mean(-1)


def per_atom(values: Sequence[FloatArray]) -> FloatArray:
    """Values of the atoms of each map, (L, H, N), joined."""
    return np.concatenate(list(values), axis=-1)
