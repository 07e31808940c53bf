r"""From the spread of an ensemble to the standard deviation of its error, and how honest that is.

The calibrated uncertainty is linear in the spread, :math:`\sigma = a s + b` with :math:`a, b \ge 0`: the form of
`Palmer et al., npj Computational Materials 8, 115 (2022) <https://doi.org/10.1038/s41524-022-00794-8>`_. Both numbers
are found by the maximum likelihood of errors that are Gaussian with that standard deviation.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torch_geometric_crystal.benchmark.recording import write_json
from torch_geometric_crystal.checks import check_argument

FORMAT = "torch_geometric_crystal calibration"
FORMAT_VERSION = 1
MIN_COUNT = 10
"""Fewest errors from which two numbers are estimated."""
COVERAGES = (0.68, 0.95)
_MIXTURES = np.linspace(0.0, 1.0, 1001)
_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    r"""Standard deviations of errors from spreads, :math:`\sigma = a s + b`, for each of T targets.

    Args:
        target_names: names of the targets.
        units: their units.
        scale: a of each target.
        offset: b of each target, in its unit.
        count: number of errors that they were estimated from.
        members: fingerprints of the ensemble's members, in any order.
    """

    target_names: tuple[str, ...]
    units: tuple[str, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    count: tuple[int, ...]
    members: tuple[str, ...] = ()

    def apply(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the uncertainties (n, T) of spreads (n, T)."""
        return np.asarray(self.scale) * spread + np.asarray(self.offset)

    def check_members(self, fingerprints: Sequence[str], target_names: Sequence[str]) -> None:
        """Raise ``ValueError`` unless it was made for these members and targets."""
        names = tuple(target_names)
        check_argument(self.target_names == names, "calibration", f"one of {', '.join(names)}", self.target_names)
        if sorted(self.members) != sorted(fingerprints):
            raise ValueError(
                "calibration: it was made for other weights than those of this ensemble; calibrate these with "
                "tgcrystal calibrate"
            )


def fit_calibration(
    spread: ArrayLike,
    error: ArrayLike,
    target_names: Sequence[str],
    units: Sequence[str],
    members: Sequence[str] = (),
) -> Calibration:
    r"""Estimate scale and offset of each target by maximum likelihood.

    .. math::
        (a, b) = \arg\min_{a, b \ge 0} \sum_i \log (a s_i + b) + \frac{e_i^2}{2 (a s_i + b)^2}

    With :math:`\sigma = c \left((1 - t) s / \bar s + t\right)`, :math:`\bar s` the mean spread, the best c follows from
    t in closed form, :math:`c^2 = \langle e^2 / ((1 - t) s / \bar s + t)^2 \rangle`, and t is searched on a grid of
    1,000 steps: t = 0 is a spread scaled, t = 1 one and the same uncertainty for all.

    Args:
        spread: spreads of the ensemble.
        error: prediction minus true value; NaN where that is unknown.
        target_names: names of the targets, T.
        units: their units.
        members: fingerprints of the ensemble's members.

    Shapes:
        - spread, error: (n, T).

    Raises:
        ValueError: if a target has fewer than 10 known errors, or they are all zero.
    """
    spread, error = np.asarray(spread, dtype=np.float64), np.asarray(error, dtype=np.float64)
    found = []
    for column, name in enumerate(target_names):
        known = np.isfinite(error[:, column]) & np.isfinite(spread[:, column])
        count = int(known.sum())
        check_argument(count >= MIN_COUNT, name, f"at least {MIN_COUNT} known values to calibrate on", count)
        s, e = spread[known, column], error[known, column]
        check_argument(bool((e != 0).any()), name, "some error to calibrate on", "none: all predictions are exact")
        found.append((*_fit_one(s, e), count))
    scale, offset, count_of = zip(*found, strict=True)
    return Calibration(
        target_names=tuple(target_names),
        units=tuple(units),
        scale=scale,
        offset=offset,
        count=count_of,
        members=tuple(members),
    )


def _fit_one(spread: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[float, float]:
    mean = float(spread.mean())
    if mean == 0.0:
        return 0.0, float(np.sqrt(np.mean(error**2)))
    best = (math.inf, 0.0, 0.0)
    for t in _MIXTURES[int(spread.min() == 0.0) :]:  # without an offset a spread of zero would be a certainty
        shape = (1.0 - t) * spread / mean + t
        size = float(np.sqrt(np.mean((error / shape) ** 2)))
        value = math.log(size) + float(np.log(shape).mean())
        if value < best[0]:
            best = (value, size * (1.0 - t) / mean, size * t)
    return best[1], best[2]


def coverage_curve(error: ArrayLike, uncertainty: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected and observed share of errors within the central interval of each probability 0, 0.01, ... 1.

    Args:
        error: known errors of one target, (n,).
        uncertainty: their stated standard deviations, (n,).
    """
    ratio = _ratio(error, uncertainty)
    limits = np.array([_half_width(level) for level in _LEVELS])
    return _LEVELS, np.array([float(np.mean(ratio <= limit)) for limit in limits])


def uncertainty_metrics(error: ArrayLike, uncertainty: ArrayLike) -> dict[str, float]:
    r"""How well stated standard deviations describe errors.

    Args:
        error: errors of one target, (n,); NaN are left out.
        uncertainty: their stated standard deviations, (n,).

    Returns:
        ``coverage_68`` and ``coverage_95``: observed shares of errors within the central intervals of 68 % and 95 %;
        ``nll``: mean negative log-likelihood of Gaussian errors; ``miscalibration_area``: the area between observed and
        expected coverage, 0 at best and 0.5 at worst (`Tran et al., Machine Learning: Science and Technology 1, 025006
        (2020) <https://doi.org/10.1088/2632-2153/ab7e1a>`_); ``rmse``; ``mean_uncertainty``; ``count``.
    """
    e, u = np.asarray(error, dtype=np.float64), np.asarray(uncertainty, dtype=np.float64)
    known = np.isfinite(e) & np.isfinite(u)
    e, u = e[known], u[known]
    if not len(e):
        names = [*(f"coverage_{p:.0%}".rstrip("%") for p in COVERAGES), "nll", "miscalibration_area", "rmse"]
        return dict.fromkeys([*names, "mean_uncertainty"], math.nan) | {"count": 0}
    ratio = _ratio(e, u)
    metrics = {f"coverage_{p:.0%}".rstrip("%"): float(np.mean(ratio <= _half_width(p))) for p in COVERAGES}
    likely = bool((u > 0.0).all())
    metrics["nll"] = float(np.mean(0.5 * ratio**2 + np.log(2.0 * math.pi * u**2) / 2)) if likely else math.inf
    expected, observed = coverage_curve(e, u)
    distance = np.abs(observed - expected)
    metrics["miscalibration_area"] = float(np.sum(0.5 * (distance[1:] + distance[:-1]) * np.diff(expected)))
    return metrics | {"rmse": float(np.sqrt(np.mean(e**2))), "mean_uncertainty": float(u.mean()), "count": len(e)}


def _ratio(error: ArrayLike, uncertainty: ArrayLike) -> NDArray[np.float64]:
    """|e| / u; 0 where the error is 0, infinite where u alone is."""
    e, u = np.abs(np.asarray(error, dtype=np.float64)), np.asarray(uncertainty, dtype=np.float64)
    return np.where(e == 0.0, 0.0, np.divide(e, u, out=np.full_like(e, np.inf), where=u > 0.0))


def _half_width(probability: float) -> float:
    """Half of the central interval of a probability, in standard deviations."""
    return NormalDist().inv_cdf(0.5 + 0.5 * probability) if probability < 1.0 else math.inf


def write_calibration(calibration: Calibration, path: str | Path, **notes: Any) -> None:
    """Write a calibration as JSON, atomically, with notes that are not read back (metrics, the data's name)."""
    content: Mapping[str, Any] = asdict(calibration)
    write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, **content, **notes})


def read_calibration(path: str | Path) -> Calibration:
    """Read what :func:`write_calibration` wrote.

    Raises:
        ValueError: if the file is missing or is no calibration, naming it.
    """
    path = Path(path)
    remedy = "Give the calibration.json of tgcrystal calibrate."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise ValueError("another format")
        fields = {name: tuple(content[name]) for name in Calibration.__dataclass_fields__}
        calibration = Calibration(**fields)
        numbers = (*calibration.scale, *calibration.offset)
        sizes = {len(values) for name, values in fields.items() if name != "members"}
        if len(sizes) != 1 or not all(isinstance(x, (int, float)) and 0 <= x < math.inf for x in numbers):
            raise ValueError("its numbers do not fit")
    except OSError as error:
        raise ValueError(f"calibration {str(path)!r}: cannot be read ({error.strerror}). {remedy}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"calibration {str(path)!r}: not a calibration ({error}). {remedy}") from error
    return calibration
