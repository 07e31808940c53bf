"""Predictions for structures in memory: pymatgen structures and ASE atoms, in the order given."""

import contextlib
import itertools
import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.batching import BATCH_BY
from torch_geometric_crystal.benchmark.prediction import (
    CHUNK,
    Predictions,
    TransformOfKnownElements,
    pick_device,
    predict,
)
from torch_geometric_crystal.checks import InvalidStructureError, check_argument, check_choice
from torch_geometric_crystal.datasets.check_structures import check_structures
from torch_geometric_crystal.datasets.processing import Recipe, StructureWarning, outcomes
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource
from torch_geometric_crystal.datasets.source import Entry, faulty_entry

ON_ERROR = ("raise", "nan")
_SHOWN = 3  # notes in a warning


@dataclass(frozen=True)
class StructurePredictions:
    """What a model says of n structures, in their order; NaN rows where ``faults`` has the position.

    Args:
        prediction: (n, T) in the units of ``model.card.units``.
        embedding: (n, C) pooled features, or None if not asked for.
        truncation_bound: (n,) as in :class:`~torch_geometric_crystal.benchmark.Predictions`.
        faults: what is wrong with a structure, by its position.
    """

    prediction: NDArray[np.floating]
    embedding: NDArray[np.floating] | None
    truncation_bound: NDArray[np.floating]
    faults: dict[int, InvalidStructureError]


def predict_structures(
    model: nn.Module,
    structures: Sequence[Any],
    *,
    return_embedding: bool = False,
    on_error: str = "raise",
    batch_size: int = 64,
    batch_by: str = "crystals",
    device: str = "auto",
    num_workers: int | None = None,
    progress: bool = False,
) -> NDArray[np.floating] | tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Predict pymatgen structures and ASE atoms. Models of ``load_model`` have this as a method.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.load_model` returns it; ``model.card`` has the names and
            units of the T targets.
        structures: pymatgen ``Structure`` or ``Molecule``, ASE ``Atoms`` or ``Data``, also mixed.
        return_embedding: whether to return the pooled features, too.
        on_error: ``"raise"`` at the first structure that cannot be used, or ``"nan"`` for a row of NaN in its place.
        batch_size: largest number of crystals, atoms or edges in a batch.
        batch_by: what `batch_size` counts.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        num_workers: processes that make graphs beside this one; None for as many as pay.
        progress: whether to show a bar (on a terminal only).

    Returns:
        An array (n, T) in the units of ``model.card.units``, in the order of `structures`; with `return_embedding` also
        an array (n, C).

    Raises:
        InvalidStructureError: for a structure that cannot be used, named by its position, unless `on_error` is
            ``"nan"``.
        ValueError: if there are no structures.

    Warns:
        StructureWarning: of structures that look wrong but can be used (overlapping atoms).
    """
    result = predict_each(
        model, structures, return_embedding, on_error, batch_size, batch_by, device, num_workers, progress
    )
    return result.prediction if result.embedding is None else (result.prediction, result.embedding)


def predict_each(
    model: nn.Module,
    structures: Sequence[Any],
    return_embedding: bool = False,
    on_error: str = "raise",
    batch_size: int = 64,
    batch_by: str = "crystals",
    device: str = "auto",
    num_workers: int | None = None,
    progress: bool = False,
) -> StructurePredictions:
    """Predict as :func:`predict_structures` does; the result also has the certified bounds and what is wrong."""
    check_settings(on_error, batch_size, batch_by, device)
    structures = check_structures(structures)
    settings = (batch_size, batch_by, device, return_embedding)
    with contextlib.closing(graphs_of(model, structures, num_workers, progress)) as graphs:
        return predict_stream([model], graphs, settings, on_error)[0]


def check_settings(on_error: str, batch_size: int, batch_by: str, device: str) -> None:
    """Raise ``ValueError`` for a setting of :func:`predict_structures` that does not fit."""
    check_choice("on_error", on_error, ON_ERROR)
    check_choice("batch_by", batch_by, BATCH_BY)
    check_argument(batch_size >= 1, "batch_size", "at least 1", batch_size)
    pick_device(device)


def predict_stream(
    models: Sequence[nn.Module],
    graphs: Iterable[Data | InvalidStructureError],
    settings: tuple[int, str, str, bool] = (64, "crystals", "auto", False),
    on_error: str = "raise",
) -> list[StructurePredictions]:
    """Predict graphs as they come with one or more models that take the same graph.

    Args:
        models: as :func:`~torch_geometric_crystal.benchmark.load_model` returns them.
        graphs: graphs, or in their place what was wrong with a structure.
        settings: batch_size, batch_by, device and embedding of :func:`~torch_geometric_crystal.benchmark.predict`.
        on_error: as in :func:`predict_structures`.

    Returns:
        One result for each model.
    """
    for model in models:
        level = card.level if (card := getattr(model, "card", None)) is not None else "crystal"
        check_argument(level == "crystal", "model", "one of whole crystals (for atoms, see tgcrystal predict)", level)
    collected = [_Collected(model.normalization.num_targets) for model in models]  # type: ignore[arg-type,union-attr]
    results = iter(graphs)
    start = 0
    while chunk := list(itertools.islice(results, CHUNK)):
        good = {start + index: graph for index, graph in enumerate(chunk) if isinstance(graph, Data)}
        bad = {start + k: fault for k, fault in enumerate(chunk) if isinstance(fault, InvalidStructureError)}
        start += len(chunk)
        for model, rows in zip(models, collected, strict=True):
            rows.number = start
            rows.faults |= bad
            rows.raise_first(on_error)
            if good:
                rows.parts.append((list(good), predict(model, list(good.values()), *settings)))
    return [rows.result(settings[3]) for rows in collected]


def graphs_of(
    model: nn.Module,
    structures: Sequence[Any],
    num_workers: int | None = None,
    progress: bool = False,
    name: str = "structures",
) -> Generator[Data | InvalidStructureError, None, None]:
    """Graphs as `model` takes them, one for each structure in order, or the error that names its position.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.load_model` returns it.
        structures: pymatgen structures, ASE atoms or `Data`.
        num_workers: as in :func:`predict_structures`.
        progress: as in :func:`predict_structures`.
        name: the argument's name in errors: ``structures[3]``.

    Warns:
        StructureWarning: at the end, a summary of what was noted.
    """
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    recipe = Recipe(TransformOfKnownElements(model), None, dtype if dtype == torch.float64 else torch.float32)
    entries = [_entry(structure, f"{name}[{index}]") for index, structure in enumerate(structures)]
    notes: list[str] = []
    with contextlib.closing(outcomes(entries, recipe, num_workers, progress, "graphs")) as results:
        for outcome in results:
            notes += outcome.notes
            yield outcome.data if outcome.fault is None else InvalidStructureError(*outcome.fault)
    if notes:
        more = len(notes) - _SHOWN
        text = "; ".join(notes[:_SHOWN]) + (f"; and {more} more such notes" if more > 0 else "")
        warnings.warn(text, StructureWarning, stacklevel=2)


def _entry(structure: Any, name: str) -> Entry:
    try:
        entry = next(iter(StructureListSource([structure], structure_ids=[name])))
    except TypeError:
        fault = f"it is no structure but a {type(structure).__name__}"
        return faulty_entry(name, fault, "Give a pymatgen Structure, ASE Atoms or Data")
    return Entry(name, None, entry.build, entry.raw)


class _Collected:
    """Predictions and faults by position."""

    def __init__(self, width: int):
        self.number, self.width = 0, width
        self.parts: list[tuple[list[int], Predictions]] = []
        self.faults: dict[int, InvalidStructureError] = {}

    def raise_first(self, on_error: str) -> None:
        if on_error == "raise" and self.faults:
            raise self.faults[min(self.faults)]

    def result(self, embedding: bool) -> StructurePredictions:
        return StructurePredictions(
            self._rows([part.prediction for _, part in self.parts], (self.width,)),
            self._rows([part.embedding for _, part in self.parts], (0,)) if embedding else None,
            self._rows([part.truncation_bound for _, part in self.parts], ()),
            self.faults,
        )

    def _rows(self, columns: Sequence[Any], shape: tuple[int, ...]) -> NDArray[np.floating]:
        """One row for each structure, NaN where there is no value; of `shape` where there is none at all."""
        like = columns[0].numpy() if columns else np.zeros((1, *shape), np.float32)
        rows = np.full((self.number, *like.shape[1:]), np.nan, like.dtype)
        for (positions, _), values in zip(self.parts, columns, strict=True):
            rows[positions] = values.numpy()
        return rows
