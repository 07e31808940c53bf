"""Learned widths of the Gaussian decay."""

from collections.abc import Sequence

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.explain.attention_map import AttentionMap, FloatArray
from torch_geometric_crystal.explain.distances import per_atom

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def sigma_by_head(maps: Sequence[AttentionMap]) -> FloatArray:
    """Widths of all atoms of all maps (L, H, total N), A; of heads in reciprocal space, too."""
    check_argument(len(maps) > 0, "maps", "at least one attention map", "none")
    return per_atom([each.sigma for each in maps])


def sigma_quantiles(maps: Sequence[AttentionMap], quantiles: Sequence[float] = QUANTILES) -> FloatArray:
    """Quantiles of the widths over all atoms (number of quantiles, L, H), A."""
    return np.quantile(sigma_by_head(maps), quantiles, axis=-1)
