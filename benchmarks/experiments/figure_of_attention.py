"""The pictures of attention_maps: distances, bonds, widths and peaks; and weight between elements."""

from pathlib import Path
from typing import Any

import numpy as np
from figures import COLORS, save
from findings_of_attention import EQUAL

from torch_geometric_crystal.benchmark.plots import GREY, new_figure, tidy


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Write NAME.png, and NAME_species.png beside it."""
    findings, rows = figures["findings"], figures["rows"]
    figure = new_figure(12.0, 6.8)
    panels = figure.subplots(2, 3).reshape(-1)
    _distances(panels[0], findings["profile"])
    _shares_on_bonds(panels[1], findings, figures["settings"]["within"])
    _widths(panels[2], findings)
    _heads(panels[3], rows, "mean_distance", "mean distance of the weight\nnot on the atom itself (Å)")
    _heads(panels[4], rows, "self_share", "weight on the atom itself")
    _peaks(panels[5], findings)
    for panel in panels:
        tidy(panel)
    models = findings["models"]
    errors = ", ".join(f"{model['test_mae']:.4f}" for model in models)
    trained = f"{len(models)} Crystalformers, {models[0]['epochs']} epochs of flla_2015, test MAE {errors} eV/atom"
    figure.suptitle(f"{trained}; {findings['crystals']} test crystals, {findings['atoms']:,} atoms", fontsize=10)
    save(figure, path)
    _draw_species(path.with_name(f"{path.stem}_species.png"), findings["species"])


def _distances(panel: Any, profile: dict[str, Any]) -> None:
    """Weight per A against distance for each block, and for equal q.k."""
    edges = np.array(profile["edges"])
    for block in sorted({one["block"] for one in profile["series"]}):
        color = COLORS[(block - 1) % len(COLORS)]
        for weights, style in (("trained", "-"), (EQUAL, "--")):
            shares = [o["share"] for o in profile["series"] if (o["block"], o["weights"]) == (block, weights)]
            mean = np.mean(shares, axis=0) / np.diff(edges)
            label = f"block {block}" if weights == "trained" else None
            panel.stairs(mean, edges, color=color, linestyle=style, linewidth=1.3, label=label)
    initial = np.mean([o["share"] for o in profile["series"] if o["weights"] == "initial"], axis=0) / np.diff(edges)
    panel.stairs(initial, edges, color="black", linestyle=":", linewidth=1.3, label="before training")
    panel.plot([], [], color=GREY, linestyle="--", label="equal q·k")
    panel.set(xlabel="distance (Å)", ylabel="weight per Å, mean of heads and seeds", xlim=(0, 8), ylim=(0, None))
    panel.legend(fontsize=7, frameon=False)


def _shares_on_bonds(panel: Any, findings: dict[str, Any], within: float) -> None:
    """Share on CrystalNN's neighbours of the weight within a range, a dot for each seed."""
    shapes = {"trained": ("o", "trained"), EQUAL: ("_", "same widths, equal q·k"), "initial": ("x", "before training")}
    for number, (weights, (marker, label)) in enumerate(shapes.items()):
        rows = [row for row in findings["block_rows"] if row["weights"] == weights]
        places = [row["block"] + 0.16 * (number - 1) for row in rows]
        values = [row["bond_share_in_range"] for row in rows]
        panel.plot(places, values, marker, color=COLORS[number], markersize=6, label=label, fillstyle="none")
    panel.axhline(findings["uniform_share_in_range"], color=GREY, linestyle="--", label="equal weights")
    panel.set_xticks(sorted({row["block"] for row in findings["block_rows"]}))
    panel.set(xlabel="block", ylabel=f"share on CrystalNN neighbours\nof the weight on others within {within:g} Å")
    panel.set_ylim(0, 1)
    panel.legend(fontsize=7, frameon=False)


def _widths(panel: Any, findings: dict[str, Any]) -> None:
    """Quantiles of the widths for each block and seed."""
    trained = [row for row in findings["block_rows"] if row["weights"] == "trained"]
    seeds = sorted({row["seed"] for row in trained})
    for row in trained:
        number = seeds.index(row["seed"])
        place, color = row["block"] + 0.22 * (number - (len(seeds) - 1) / 2), COLORS[number % len(COLORS)]
        panel.vlines(place, row["sigma_5"], row["sigma_95"], color=color, linewidth=1)
        panel.vlines(place, row["sigma_25"], row["sigma_75"], color=color, linewidth=5, alpha=0.6)
        panel.plot(place, row["sigma_50"], "o", color=color, markersize=4, label=_seed_label(row))
    panel.axhline(findings["largest_sigma"], color=GREY, linestyle="--", label="largest possible")
    panel.set_xticks(sorted({row["block"] for row in trained}))
    panel.set(xlabel="block", ylabel="width sigma (Å): 5, 25, 50, 75, 95 %", ylim=(0, None))
    panel.legend(fontsize=7, frameon=False, loc="lower left")


def _heads(panel: Any, rows: list[dict[str, Any]], name: str, label: str) -> None:
    """A dot for each head and seed against the block."""
    seeds = sorted({row["seed"] for row in rows})
    for number, seed in enumerate(seeds):
        mine = [row for row in rows if row["seed"] == seed]
        places = [row["block"] + 0.22 * (number - (len(seeds) - 1) / 2) for row in mine]
        values = [row[name] for row in mine]
        panel.plot(
            places, values, "o", color=COLORS[number % len(COLORS)], alpha=0.7, markersize=4, label=f"seed {seed}"
        )
    panel.set_xticks(sorted({row["block"] for row in rows}))
    panel.set(xlabel="block (a dot for each head)", ylabel=label)
    panel.legend(fontsize=7, frameon=False)


def _peaks(panel: Any, findings: dict[str, Any]) -> None:
    """Peak of the weight against bond length in the first and the last block, a dot for each pair of elements."""
    pairs = findings["pairs"]
    last = max(row["block"] for row in findings["block_rows"])
    bonds = [pair["bond"] for pair in pairs]
    for block in sorted({1, last}):
        found = [
            row
            for row in findings["by_block"]["peak_correlation"]
            if (row["weights"], row["block"]) == ("trained", block)
        ]
        text = f", r = {found[0]['mean']:.2f}" if found else ""
        color = COLORS[(block - 1) % len(COLORS)]
        peaks = [pair["peak"][block - 1] for pair in pairs]
        panel.plot(bonds, peaks, "o", color=color, markersize=3, alpha=0.6, linewidth=0, label=f"block {block}{text}")
    limits = (min(bonds) - 0.1, max(bonds) + 0.3)
    panel.plot(limits, limits, color=GREY, linewidth=1, label="equal")
    panel.set(xlabel="CrystalNN bond length of the pair (Å)", ylabel="peak of the weight (Å)")
    panel.legend(fontsize=7, frameon=False)


def _seed_label(row: dict[str, Any]) -> str | None:
    return f"seed {row['seed']}" if row["block"] == 1 else None


def _draw_species(path: Path, species: dict[str, Any]) -> None:
    """Weight between elements over that of equal q.k, a panel for each block."""
    values = np.array(species["log10_preference"], dtype=float)
    elements, blocks = species["elements"], len(values)
    figure = new_figure(3.6 * blocks + 0.8, 4.2)
    panels = figure.subplots(1, blocks, squeeze=False)[0]
    known = np.abs(values[np.isfinite(values)])
    reach = float(np.quantile(known, 0.98)) if known.size else 1.0
    for block, panel in enumerate(panels):
        image = panel.imshow(values[block], cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
        panel.set_facecolor("#e2e8f0")
        panel.set_xticks(range(len(elements)), elements, fontsize=7, rotation=90)
        panel.set_yticks(range(len(elements)), elements, fontsize=7)
        panel.set(title=f"block {block + 1}", xlabel="element looked at")
    panels[0].set_ylabel("element of the atom")
    figure.colorbar(image, ax=panels, shrink=0.8, label="log10 (weight / weight at equal q·k)")
    save(figure, path)
