"""Pictures of attention: against distance, between elements, of the learned widths, around atoms.

Each function returns matplotlib's axes; ``save_figure(axes[0].figure, path)`` of ``benchmark.plots``, or
``axes[0].figure.savefig(path)``, writes the picture. No display is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_geometric_crystal.benchmark.plots import GREY, new_figure, tidy
from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.explain.attention_map import AttentionMap, FloatArray, check_image_weights
from torch_geometric_crystal.explain.bonds import Bonds
from torch_geometric_crystal.explain.distances import DistanceProfile
from torch_geometric_crystal.explain.shells import attention_shells
from torch_geometric_crystal.explain.species import SpeciesPairs
from torch_geometric_crystal.explain.widths import sigma_by_head

COLORS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280", "#b7791f", "#319795", "#718096")
MISSING = "#e2e8f0"
MOST_NUMBERED = 12
"""Elements up to which the map of species has numbers."""
MOST_ATOMS = 6
"""Atoms that the picture of a structure shows unless told which."""
Axes = NDArray[Any]


def plot_weight_by_distance(profile: DistanceProfile, axes: Sequence[Any] | None = None, title: str = "") -> Axes:
    """Weight for each A of distance, a panel for each block, a line for each head; dashed, the mean if q.k were equal.

    Args:
        profile: of :func:`~torch_geometric_crystal.explain.weight_by_distance`.
        axes: one for each block, or None for a new figure.
        title: heading of a new figure.

    Returns:
        The axes (L,).
    """
    blocks, heads = profile.share.shape[:2]
    panels = _panels(axes, 1, blocks, title, height=3.2).reshape(-1)
    width = np.diff(profile.edges)
    reach = profile.edges[1:][profile.images > 0].max(initial=profile.edges[1])
    for block, panel in enumerate(panels):
        for head in range(heads):
            if not np.isnan(profile.self_share[block, head]):
                label = f"head {head + 1} (itself {profile.self_share[block, head]:.2f})"
                color = COLORS[head % len(COLORS)]
                panel.stairs(profile.share[block, head] / width, profile.edges, color=color, linewidth=1.1, label=label)
        if not np.isnan(profile.self_share[block]).all():
            equal = np.nanmean(profile.decay_share[block], axis=0) / width
            panel.stairs(equal, profile.edges, color="black", linestyle="--", linewidth=1.1, label="equal q·k")
            panel.legend(fontsize=6, frameon=False)
        panel.set(title=f"block {block + 1}", xlabel="distance (Å)", ylabel="weight per Å")
        panel.set(xlim=(0, reach), ylim=(0, None))
        tidy(panel)
    return panels


def plot_species_pairs(
    pairs: SpeciesPairs,
    block: int | None = None,
    head: int | None = None,
    relative: bool = False,
    axes: Any | None = None,
    title: str = "",
) -> Any:
    """A map of the weight that atoms of one element (rows) put on images of another (columns), apart from themselves.

    Args:
        pairs: of :func:`~torch_geometric_crystal.explain.weight_by_species`.
        block: number from 0; None for the mean over blocks.
        head: number from 0; None for the mean over heads.
        relative: show the weight divided by what equal q.k would give, on a logarithmic scale of colours.
        axes: where to draw, or None for a new figure.
        title: heading of a new figure.

    Returns:
        The axes.
    """
    share, decay_share = (_selected(values, block, head) for values in (pairs.share, pairs.decay_share))
    number = len(pairs.elements)
    side = max(3.6, min(0.32 * number + 2.4, 12.0))
    panel = _panels(None if axes is None else [axes], 1, 1, title, side + 0.8, side).reshape(-1)[0]
    values = share / np.where(decay_share > 0, decay_share, np.nan) if relative else share
    colors: dict[str, Any] = {"cmap": "Blues", "vmin": 0.0}
    if relative:
        positive = values[np.isfinite(values) & (values > 0)]
        reach = float(np.quantile(np.abs(np.log10(positive)), 0.98)) if positive.size else 1.0
        colors = {"cmap": "RdBu_r", "vmin": -(reach or 1.0), "vmax": reach or 1.0}
    shown = np.log10(np.where(values > 0, values, np.nan)) if relative else values
    image = panel.imshow(shown, interpolation="nearest", **colors)
    panel.set_facecolor(MISSING)
    label = "log10 (weight / weight at equal q·k)" if relative else "weight"
    panel.figure.colorbar(image, ax=panel, label=label, shrink=0.8)
    size = 9 if number <= 2 * MOST_NUMBERED else 6
    panel.set_xticks(range(number), pairs.elements, fontsize=size, rotation=90 if number > MOST_NUMBERED else 0)
    panel.set_yticks(range(number), pairs.elements, fontsize=size)
    if number <= MOST_NUMBERED:
        for row, column in np.argwhere(np.isfinite(values)).tolist():
            panel.text(column, row, f"{values[row, column]:.2g}", ha="center", va="center", fontsize=7)
    panel.set(xlabel="element looked at", ylabel="element of the atom")
    return panel


def plot_sigma(maps: Sequence[AttentionMap], axes: Any | None = None, title: str = "") -> Any:
    """Learned widths: a box for each block and head from the 25th to the 75th percentile, whiskers at 5 and 95.

    Args:
        maps: of one model.
        axes: where to draw, or None for a new figure.
        title: heading of a new figure.

    Returns:
        The axes.
    """
    sigma = sigma_by_head(maps)
    blocks, heads = sigma.shape[:2]
    panel = _panels(None if axes is None else [axes], 1, 1, title, max(4.0, 0.22 * blocks * heads + 1.5), 3.4)
    panel = panel.reshape(-1)[0]
    for block in range(blocks):
        places = [block * (heads + 1) + head for head in range(heads)]
        boxes = panel.boxplot(
            list(sigma[block]), positions=places, whis=(5, 95), showfliers=False, widths=0.7, patch_artist=True,
            manage_ticks=False,
        )  # fmt: skip
        for box, median in zip(boxes["boxes"], boxes["medians"], strict=True):
            box.set(facecolor=COLORS[block % len(COLORS)], alpha=0.6)
            median.set(color="black")
    centers = [block * (heads + 1) + (heads - 1) / 2 for block in range(blocks)]
    panel.set_xticks(centers, [f"block {block + 1}" for block in range(blocks)])
    panel.set(xlabel=f"heads 1 to {heads} of each block", ylabel="width sigma (Å)")
    tidy(panel)
    return panel


def plot_atoms(
    attention: AttentionMap,
    bonds: Bonds | None = None,
    atoms: Sequence[int] | None = None,
    reduce: str = "mean",
    axes: Any | None = None,
    title: str = "",
) -> Axes:
    """What atoms look at: a stem for each shell of equal neighbours, a row for each atom, a column for each block.

    Filled dots are shells with bonds, the grey one is the atom itself.

    Args:
        attention: the map.
        bonds: of the map.
        atoms: their numbers from 0; by default the first of each element, six at most.
        reduce: over heads: ``"mean"`` or ``"max"``.
        axes: (number of atoms, L), or None for a new figure.
        title: heading of a new figure, by default name and formula.

    Returns:
        The axes (number of atoms, L).
    """
    check_image_weights([attention])
    check_choice("reduce", reduce, ("mean", "max"))
    symbols = attention.elements
    if atoms is None:
        atoms = [symbols.index(symbol) for symbol in dict.fromkeys(symbols)][:MOST_ATOMS]
    check_argument(len(atoms) > 0, "atoms", "at least one atom", "none")
    blocks = len(attention.domains)
    title = title or f"{attention.structure_id}: {attention.formula}"
    panels = _panels(axes, len(atoms), blocks, title, width=3.0, height=2.2 * len(atoms) + 0.6)
    panels = panels.reshape(len(atoms), blocks)
    color = {symbol: COLORS[k % len(COLORS)] for k, symbol in enumerate(dict.fromkeys(symbols))}
    has_weights = attention.has_image_weights.any(-1)
    for row, atom in zip(panels, atoms, strict=True):
        shells = attention_shells(attention, atom, bonds)
        for block in np.flatnonzero(has_weights).tolist():
            _stems(row[block], shells, block, reduce, color)
        for block, panel in enumerate(row):
            panel.set_title(f"{symbols[atom]} (atom {atom}), block {block + 1}", fontsize=8)
            panel.set(ylim=(0, None), xlim=(-0.3, None))
            tidy(panel)
        row[0].set_ylabel(f"weight, {reduce} of heads", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("distance (Å)", fontsize=8)
    if panels[0, 0].get_legend_handles_labels()[0]:
        panels[0, 0].legend(fontsize=6, frameon=False)
    return panels


def _stems(panel: Any, shells: Sequence[Any], block: int, reduce: str, color: dict[str, str]) -> None:
    """Draw the shells that have a weight; of each element the first with a label."""
    labelled = set()
    for shell in shells:
        height = float(getattr(np, f"nan{reduce}")(shell.share[block]))
        if height < 1e-3:
            continue
        shade = GREY if shell.is_self else color[shell.element]
        name = "itself" if shell.is_self else shell.element
        filled = shell.num_bonded > 0 or shell.is_self
        panel.vlines(shell.dist, 0, height, color=shade, linewidth=1.3)
        panel.plot(
            shell.dist, height, "o", color=shade, markerfacecolor=shade if filled else "white", markersize=4,
            label=None if name in labelled else name,
        )  # fmt: skip
        labelled.add(name)


def _selected(values: FloatArray, block: int | None, head: int | None) -> FloatArray:
    """One block and head of (L, H, S, S), or the mean over them; heads in reciprocal space are left out."""
    for name, number, size in (("block", block, values.shape[0]), ("head", head, values.shape[1])):
        check_argument(number is None or 0 <= number < size, name, f"None or a number from 0 to {size - 1}", number)
    values = values[slice(None) if block is None else [block]][:, slice(None) if head is None else [head]]
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum((0, 1)) / np.where(known.any((0, 1)), known.sum((0, 1)), np.nan)


def _panels(
    axes: Any | None, rows: int, columns: int, title: str, width: float = 3.6, height: float = 3.2
) -> NDArray[Any]:
    """The given axes as an array, or those of a new figure."""
    if axes is not None:
        given = np.asarray(axes, dtype=object)
        check_argument(given.size == rows * columns, "axes", f"{rows * columns} of them", given.size)
        return given
    figure = new_figure(width * columns, height)
    if title:
        figure.suptitle(title, fontsize=10)
    return np.asarray(figure.subplots(rows, columns, squeeze=False), dtype=object)
