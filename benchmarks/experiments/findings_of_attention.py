"""What is measured of a model's attention on the test crystals, and what follows over seeds."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from command_line import digits
from pymatgen.core import Element
from summary import over_seeds, paired_difference
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.explain import (
    BondPeaks,
    Bonds,
    DistanceProfile,
    SpeciesPairs,
    attention_map,
    bond_peaks,
    crystal_nn_bonds,
    head_rows,
    image_graph,
    peak_correlation,
    sigma_by_head,
    weight_by_distance,
    weight_by_species,
)

AT_BOUND = 0.99
"""Widths above this share of the largest that the model can learn count as at the bound."""
EQUAL = "equal q.k"
SAME_IN_ALL_HEADS = ("uniform_share_in_range", "nearest_recall")
SHARES = ("bond_share", "bond_share_in_range", "bond_recall", "self_share", "mean_distance", "moved_by_dot_products")


@dataclass(frozen=True)
class Measured:
    """One model's attention.

    Args:
        labels: weights (initial or trained), seed, epochs and test_mae of the run.
        heads: rows of :func:`~torch_geometric_crystal.explain.head_rows`.
        profile: weight against distance.
        pairs: weight between elements.
        peaks: peaks of the weight and bond lengths.
        sigma: quantiles of the widths over atoms and heads of each block (5, L), A.
        bound: largest width that the model can learn, A.
        at_bound: share of widths at the bound (L,).
        correlation: of peak and bond length (L, H), and that of equal q.k.
        num_crystals: that were looked at.
        truncation: largest and median certified share beyond the graphs.
    """

    labels: dict[str, Any]
    heads: list[dict[str, Any]]
    profile: DistanceProfile
    pairs: SpeciesPairs
    peaks: BondPeaks
    sigma: np.ndarray
    bound: float
    at_bound: np.ndarray
    correlation: tuple[np.ndarray, np.ndarray]
    num_crystals: int
    truncation: tuple[float, float]


def measure(
    labels: dict[str, Any],
    model: nn.Module,
    crystals: Sequence[Data],
    settings: dict[str, Any],
    bonds: dict[str, list[Bonds]],
) -> Measured:
    """Look at a model.

    Args:
        labels: of the row.
        model: as ``load_model`` returns it.
        crystals: to look at.
        settings: of the experiment.
        bonds: of the crystals, by the graph; what is missing is found and kept, since CrystalNN takes its time.
    """
    add_graph = image_graph(model)
    maps = [attention_map(model, add_graph(data)) for data in crystals]
    known = bonds.setdefault(repr(add_graph), [])
    known += [crystal_nn_bonds(each) for each in maps[len(known) :]]
    edges = np.arange(0.0, settings["farthest"] + 1e-9, settings["bin_width"])
    sigma = sigma_by_head(maps)
    bound = model.config()["r0"] / np.sqrt(model.config()["rho_min"])  # type: ignore[operator]
    peaks = bond_peaks(maps, known)
    truncation = [each.truncation_bound for each in maps]
    return Measured(
        labels,
        head_rows(maps, known, settings["within"]),
        weight_by_distance(maps, edges.tolist()),
        weight_by_species(maps),
        peaks,
        np.quantile(sigma, (0.05, 0.25, 0.5, 0.75, 0.95), axis=(1, 2)),
        float(bound),
        (sigma > AT_BOUND * bound).mean((1, 2)),
        tuple(peak_correlation(peaks, settings["min_atoms"], equal) for equal in (False, True)),  # type: ignore[arg-type]
        len(maps),
        (max(truncation), float(np.median(truncation))),
    )


def head_table(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row for each seed, block and head of the trained models."""
    rows = []
    for each in measured:
        if each.labels["weights"] == "trained":
            for row in each.heads:
                numbers = {
                    name: digits(value, 3)
                    for name, value in row.items()
                    if isinstance(value, float) and name not in SAME_IN_ALL_HEADS
                }
                rows.append({"seed": each.labels["seed"], "block": row["block"], "head": row["head"]} | numbers)
    return rows


def findings_of(measured: Sequence[Measured], settings: dict[str, Any]) -> dict[str, Any]:
    """Means with spread over seeds, differences to the controls, and what the pictures show."""
    rows = [row for each in measured for row in _block_rows(each, settings["min_atoms"])]
    trained = [each for each in measured if each.labels["weights"] == "trained"]
    blocks = range(1, len(trained[0].at_bound) + 1)
    first = trained[0]
    return {
        "models": [each.labels for each in trained],
        "crystals": first.num_crystals,
        "atoms": first.profile.num_atoms,
        "nearest_recall": digits(first.heads[0]["nearest_recall"]),
        "largest_sigma": digits(first.bound),
        "uniform_share_in_range": digits(first.heads[0]["uniform_share_in_range"]),
        "truncation_bound": [
            {"max": digits(t.truncation[0], 2), "median": digits(t.truncation[1], 2)} for t in trained
        ],
        "by_block": {
            name: over_seeds(rows, ("weights", "block"), name)
            for name in (*SHARES, "sigma_50", "at_bound", "peak_correlation", "electronegativity_correlation")
        },
        "over_heads": {name: _spread_over_heads(trained, name) for name in SHARES},
        "differences": [
            paired_difference(rows, {"weights": "trained", "block": block}, {"weights": other, "block": block}, name)
            | {"value": name}
            for name in ("bond_share_in_range", "bond_recall", "mean_distance")
            for other in (EQUAL, "initial")
            for block in blocks
            if (name, other) != ("bond_recall", EQUAL)
        ],
        "block_rows": rows,
        "profile": _profiles(measured),
        "pairs": _pairs(trained, settings["min_atoms"]),
        "species_agreement": _agreement(trained, settings["min_atoms"]),
        "species": _species(trained, settings["shown_elements"]),
    }


def _block_rows(each: Measured, min_atoms: int) -> list[dict[str, Any]]:
    """Means over the heads of each block; for a trained model also those that its widths alone would give."""
    rows = []
    for block in range(len(each.at_bound)):
        heads = [row for row in each.heads if row["block"] == block + 1]
        labels = {"weights": each.labels["weights"], "block": block + 1, "seed": each.labels["seed"]}
        row = labels | {name: _mean([head[name] for head in heads]) for name in SHARES}
        row |= {f"sigma_{q}": digits(each.sigma[k, block]) for k, q in enumerate((5, 25, 50, 75, 95))}
        row |= {"at_bound": digits(each.at_bound[block]), "peak_correlation": _mean(each.correlation[0][block])}
        row["electronegativity_correlation"] = _electronegativity_correlation(each.pairs, block, min_atoms)
        rows.append(row)
        if each.labels["weights"] == "trained":
            equal = {
                "bond_share_in_range": _mean([head["decay_share_in_range"] for head in heads]),
                "mean_distance": _mean([head["decay_distance"] for head in heads]),
                "peak_correlation": _mean(each.correlation[1][block]),
            }
            rows.append(labels | {"weights": EQUAL} | equal)
    return rows


def _spread_over_heads(trained: Sequence[Measured], name: str) -> dict[str, float | None]:
    """Smallest and largest value of any head of any trained model."""
    values = [row[name] for each in trained for row in each.heads]
    return {"min": digits(min(values)), "max": digits(max(values))}


def _profiles(measured: Sequence[Measured]) -> dict[str, Any]:
    """Weight in each bin, mean over heads, for each model and block."""
    profile = measured[0].profile
    series = []
    for each in measured:
        labels = {"weights": each.labels["weights"], "seed": each.labels["seed"]}
        shares = [(labels, each.profile.share)]
        if each.labels["weights"] == "trained":
            shares.append((labels | {"weights": EQUAL}, each.profile.decay_share))
        for names, share in shares:
            for block, values in enumerate(share.mean(1)):
                series.append(names | {"block": block + 1, "share": [digits(value, 3) for value in values]})
    images = [digits(value, 3) for value in profile.images]
    return {"edges": [digits(edge) for edge in profile.edges], "images": images, "series": series}


def _pairs(trained: Sequence[Measured], min_atoms: int) -> list[dict[str, Any]]:
    """Bond length and peak of the weight, mean over heads and seeds, for each pair of elements with enough atoms."""
    peaks = [each.peaks for each in trained]
    rows = []
    for place, (atom, neighbor) in enumerate(peaks[0].pairs):
        if peaks[0].num_atoms[place] >= min_atoms:
            mean = np.mean([found.peak[..., place].mean(1) for found in peaks], axis=0)
            equal = np.mean([found.decay_peak[..., place].mean(1) for found in peaks], axis=0)
            lengths = {"bond": digits(peaks[0].bond_length[place], 3), "atoms": int(peaks[0].num_atoms[place])}
            values = {"peak": [digits(value, 3) for value in mean], "equal": [digits(value, 3) for value in equal]}
            rows.append({"pair": f"{atom}-{neighbor}"} | lengths | values)
    return rows


def _species(trained: Sequence[Measured], number: int) -> dict[str, Any]:
    """Logarithm to base 10 of weight over weight at equal q.k of the most frequent elements, mean over seeds."""
    pairs = trained[0].pairs
    chosen = np.sort(np.argsort(-pairs.num_atoms, kind="stable")[:number])
    logs = np.mean([_log_preference(each.pairs) for each in trained], axis=0)[:, chosen][:, :, chosen]
    values = [[[digits(v, 3) if np.isfinite(v) else None for v in row] for row in block] for block in logs]
    return {"elements": [pairs.elements[k] for k in chosen], "log10_preference": values}


def _agreement(trained: Sequence[Measured], min_atoms: int) -> list[dict[str, Any]]:
    """Correlation between seeds of the preference for pairs of elements, for each block and two seeds."""
    logs = [_log_preference(each.pairs) for each in trained]
    enough = trained[0].pairs.num_atoms >= min_atoms
    rows = []
    for first, second in itertools.combinations(range(len(trained)), 2):
        for block, (one, other) in enumerate(zip(logs[first], logs[second], strict=True)):
            known = np.isfinite(one) & np.isfinite(other) & enough & enough[:, None]
            seeds = [trained[k].labels["seed"] for k in (first, second)]
            row = {"block": block + 1, "seeds": seeds, "pairs": int(known.sum())}
            spread = [digits(float(values[known].std()), 3) for values in (one, other)]
            value = float(np.corrcoef(one[known], other[known])[0, 1]) if known.sum() > 2 else None
            rows.append(row | {"correlation": digits(value, 3), "std": spread})
    return rows


def _log_preference(pairs: SpeciesPairs) -> np.ndarray:
    """log10 of mean weight over mean weight at equal q.k, heads averaged, (L, S, S); NaN where there is no weight."""
    share, equal = pairs.share.mean(1), pairs.decay_share.mean(1)
    return np.log10(np.where(share > 0, share, np.nan) / np.where(equal > 0, equal, np.nan))


def _electronegativity_correlation(pairs: SpeciesPairs, block: int, min_atoms: int) -> float | None:
    """Correlation of the preference for an element with the difference of electronegativities (Pauling), over pairs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        x = np.array([Element(symbol).X for symbol in pairs.elements])
    apart = np.abs(x[:, None] - x)
    preference = _log_preference(pairs)[block]
    enough = pairs.num_atoms >= min_atoms
    known = np.isfinite(preference) & np.isfinite(apart) & enough & enough[:, None]
    if known.sum() < 3 or np.ptp(preference[known]) == 0:
        return None
    return digits(float(np.corrcoef(preference[known], apart[known])[0, 1]))


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if np.isfinite(value)]
    return digits(float(np.mean(known))) if known else None
