"""An ensemble's calibration from data to files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_geometric_crystal.benchmark.calibration import fit_calibration, uncertainty_metrics, write_calibration
from torch_geometric_crystal.benchmark.calibration_plot import plot_calibration
from torch_geometric_crystal.benchmark.ensemble import Ensemble
from torch_geometric_crystal.benchmark.recording import column_names, write_table
from torch_geometric_crystal.checks import check_argument


def run_calibration(
    ensemble: Ensemble, data: str, part: str, check_part: str, output: str | Path, **settings: Any
) -> dict[str, dict[str, dict[str, float]]]:
    """Calibrate an ensemble on one part of a data set and check it on another.

    The folder gets calibration.json (with the metrics), calibration.csv (id, target, prediction, spread, uncertainty of
    the part that is checked) and calibration.png. The ensemble has the calibration afterwards.

    Args:
        ensemble: of models of numbers.
        data: a bundled set's name or a path.
        part: part to calibrate on.
        check_part: part to check on.
        output: the folder.
        **settings: of :meth:`Ensemble.predict_part`: seed, val_fraction, test_fraction, batch_size, batch_by, device,
            progress.

    Returns:
        the metrics of :func:`~torch_geometric_crystal.benchmark.calibration.uncertainty_metrics` by target, for
        ``"spread"`` and ``"calibrated"``.

    Raises:
        ValueError: for an ensemble of classifiers, or too few known targets.
    """
    card: Any = ensemble.card
    task = card.task
    check_argument(task == "regression", "members", "models of numbers (probabilities are uncertainties already)", task)
    ids, found, target = ensemble.predict_part(data, part, **settings)
    calibration = fit_calibration(
        found.spread, found.mean - target, card.target_names, card.units, ensemble.fingerprints
    )
    ensemble.calibration = calibration
    if check_part != part:
        ids, found, target = ensemble.predict_part(data, check_part, **settings)
    error, uncertainty = found.mean - target, calibration.apply(found.spread)
    metrics = {
        name: {
            "spread": uncertainty_metrics(error[:, column], found.spread[:, column]),
            "calibrated": uncertainty_metrics(error[:, column], uncertainty[:, column]),
        }
        for column, name in enumerate(card.target_names)
    }
    folder = Path(output)
    parts = {"calibrated_on": part, "checked_on": check_part}
    write_calibration(calibration, folder / "calibration.json", data=data, **parts, metrics=metrics)
    _write_rows(folder / "calibration.csv", ids, card.target_names, target, found.mean, found.spread, uncertainty)
    title = f"{len(ensemble.members)} models on {data}, {check_part} part"
    picture = folder / "calibration.png"
    plot_calibration(error, found.spread, uncertainty, picture, card.target_names, card.units, title)
    return metrics


def was_trained_on(ensemble: Ensemble, data: str, part: str) -> bool:
    """Whether members were trained on crystals of a part, by the name of the data."""
    cards: list[Any] = [model.card for model in ensemble.members]
    names = {training["data"] for card in cards for training in card.trainings}
    return part in ("train", "all") and Path(data).name in names


def _write_rows(path: Path, ids: list[str], names: tuple[str, ...], *columns: NDArray[np.float64]) -> None:
    targets, predictions = column_names(names)
    headings = [
        *targets,
        *predictions,
        *uncertainty_columns(names, "spread"),
        *uncertainty_columns(names, "uncertainty"),
    ]
    table = np.concatenate(columns, axis=1).tolist()
    write_table(path, [{"id": i} | dict(zip(headings, row, strict=True)) for i, row in zip(ids, table, strict=True)])


def uncertainty_columns(target_names: tuple[str, ...], kind: str) -> list[str]:
    """Names of the columns of spreads or uncertainties: ``spread``, or ``spread_<name>`` for several targets."""
    return [kind] if len(target_names) == 1 else [f"{kind}_{name}" for name in target_names]
