"""Spread over seeds: means with standard deviations, and differences of trials that share their seed."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from command_line import digits
from scipy import stats


def over_seeds(rows: Sequence[dict[str, Any]], by: Sequence[str], value: str = "test_mae") -> list[dict[str, Any]]:
    """Mean, standard deviation and number of a column for each combination of labels, in order of appearance.

    Args:
        rows: of trials.
        by: the labels that tell combinations apart.
        value: the column.
    """
    found = []
    for labels, values in grouped(rows, by, value).items():
        spread = digits(statistics.stdev(values), 3) if len(values) > 1 else None
        mean = digits(statistics.fmean(values), 5)
        found.append(dict(zip(by, labels, strict=True)) | {"mean": mean, "std": spread, "number": len(values)})
    return found


def grouped(rows: Sequence[dict[str, Any]], by: Sequence[str], value: str) -> dict[tuple, list[float]]:
    """The values of a column for each combination of labels; rows without the column are left out."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        if row.get(value) is not None:
            groups.setdefault(tuple(row[name] for name in by), []).append(row[value])
    return groups


def paired_difference(
    rows: Sequence[dict[str, Any]],
    first: dict[str, Any],
    second: dict[str, Any],
    value: str = "test_mae",
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Mean of (first - second) over the trials that otherwise have the same labels, with Student's interval.

    Args:
        rows: of trials.
        first: labels of the ones.
        second: labels of the others.
        value: the column.
        confidence: of the interval.

    Returns:
        mean, low, high, number; and resolved: whether the interval excludes zero (None for fewer than two pairs).

    Raises:
        ValueError: if no pair is there.
    """
    ones, others = (_by_seed(rows, labels, value) for labels in (first, second))
    seeds = [seed for seed in ones if seed in others]
    if not seeds:
        raise ValueError(f"no trials with the same seed for {first} and {second}")
    differences = [ones[seed] - others[seed] for seed in seeds]
    low, high = student_interval(differences, confidence)
    return {
        "first": first,
        "second": second,
        "mean": digits(statistics.fmean(differences), 4),
        "low": digits(low, 4),
        "high": digits(high, 4),
        "number": len(differences),
        "resolved": None if low is None or high is None else not low <= 0 <= high,
    }


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Interval of the mean of a few values that scatter normally; None, None for fewer than two."""
    if len(values) < 2:
        return None, None
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def power_law(
    sizes: Sequence[float], errors: Sequence[float], samples: int = 1000, seed: int = 0
) -> dict[str, float | None]:
    """Fit error = factor * size^-exponent in logarithms; the interval of 95 % from resampling the points.

    Args:
        sizes: of the training sets, one for each error.
        errors: of the trials.
        samples: how often to resample.
        seed: of the resampling.

    Raises:
        ValueError: with fewer than two sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"power law: expected at least two sizes, received {sorted(set(sizes))}")
    x, y = np.log(sizes), np.log(errors)
    slope, offset = np.polyfit(x, y, 1)
    generator = np.random.default_rng(seed)
    slopes = []
    while len(slopes) < samples:
        chosen = generator.integers(len(x), size=len(x))
        if np.ptp(x[chosen]) > 0:
            slopes.append(np.polyfit(x[chosen], y[chosen], 1)[0])
    low, high = np.quantile(-np.array(slopes), [0.025, 0.975])
    return {
        "exponent": digits(-slope, 3),
        "low": digits(low, 3),
        "high": digits(high, 3),
        "factor": digits(np.exp(offset)),
    }


def _by_seed(rows: Sequence[dict[str, Any]], labels: dict[str, Any], value: str) -> dict[Any, float]:
    return {row["seed"]: row[value] for row in rows if all(row[name] == wanted for name, wanted in labels.items())}
