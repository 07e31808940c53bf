"""Attention weight between elements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torch_geometric_crystal.data.elements import SYMBOLS
from torch_geometric_crystal.explain.attention_map import (
    AttentionMap,
    FloatArray,
    IntArray,
    check_image_weights,
    sum_by_index,
)


@dataclass(frozen=True)
class SpeciesPairs:
    """How the weight of atoms of one element is spread over elements, mean over these atoms.

    NaN in heads of reciprocal space, and where no atom of one element has the other within its range.

    Args:
        elements: S symbols, by atomic number.
        share: weight of an atom of the first element on images of the second, its own place apart (L, H, S, S).
        decay_share: the same if all q.k were equal (L, H, S, S).
        self_share: weight of an atom on its own place (L, H, S).
        num_atoms: number of atoms of each element (S,).
    """

    elements: tuple[str, ...]
    share: FloatArray
    decay_share: FloatArray
    self_share: FloatArray
    num_atoms: IntArray


def weight_by_species(maps: Sequence[AttentionMap]) -> SpeciesPairs:
    """Sum the weights by element of the atom and of the image, mean over the atoms of all maps.

    A pair's mean is over those atoms of the first element whose crystal has the second, so that crystals without it
    do not count as zero.

    Args:
        maps: of one model.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
        ValueError: if the maps are of different models.
    """
    check_image_weights(maps)
    numbers = np.unique(np.concatenate([each.z for each in maps]))
    size = len(numbers)
    heads = maps[0].weights.shape[:2]
    share, decay_share, own = np.zeros((*heads, size**2)), np.zeros((*heads, size**2)), np.zeros((*heads, size))
    atoms, met = np.zeros(size, dtype=np.int64), np.zeros((size, size), dtype=np.int64)
    for each in maps:
        kind = np.searchsorted(numbers, each.z)
        apart = ~each.is_self
        pair = (kind[each.target] * size + kind[each.source])[apart]
        share += sum_by_index(each.weights[..., apart], pair, size**2)
        decay_share += sum_by_index(each.decay_weights[..., apart], pair, size**2)
        own += sum_by_index(each.sum_by_target(each.weights * each.is_self), kind, size)
        counts = np.bincount(kind, minlength=size)
        atoms += counts
        met += np.where(counts > 0, counts[:, None], 0)
    known = np.where(met > 0, met, np.nan)
    blank = np.where(maps[0].has_image_weights, 1.0, np.nan)[..., None]
    return SpeciesPairs(
        tuple(SYMBOLS[number - 1] for number in numbers.tolist()),
        (share * blank).reshape(*heads, size, size) / known,
        (decay_share * blank).reshape(*heads, size, size) / known,
        own / atoms,
        atoms,
    )
