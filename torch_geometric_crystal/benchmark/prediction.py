"""Predictions of a trained model for crystals, structures and files."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from torch_geometric_crystal.benchmark.batching import crystal_loader
from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.objectives import make_objective
from torch_geometric_crystal.checks import InvalidStructureError, check_argument
from torch_geometric_crystal.data.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from torch_geometric_crystal.datasets.graph_store import OnDiskCrystals

CHUNK = 512
"""Files whose graphs are in memory at a time."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of n crystals, in their order.

    Args:
        ids: the crystals' names.
        prediction: (n, T) in physical units, on the CPU; of a classification (n, K), probabilities of the classes. Of a
            model that predicts each atom the rows are atoms, crystal after crystal.
        target: (n, T), NaN where unknown; of a classification the class's number.
        truncation_bound: (n,) certified upper bound on the share of any softmax row that the graph's cutoff dropped;
            NaN for models without one.
        embedding: (n, C) pooled features, or None if not asked for.
        atoms: atomic numbers of each crystal's atoms, n tensors, of a model that predicts each atom; else None.
    """

    ids: list[str]
    prediction: Tensor
    target: Tensor
    truncation_bound: Tensor
    embedding: Tensor | None = None
    atoms: list[Tensor] | None = None


@dataclass(frozen=True)
class FileRow:
    """The prediction for one file: values of each target and the truncation's bound, or what went wrong.

    Of a model that predicts each atom there is a row for each of them, with its number from 0 and its element.
    """

    structure_id: str
    path: str
    values: tuple[float, ...]
    truncation_bound: float
    error: str
    atom: int | None = None
    element: str = ""


def pick_device(device: str = "auto") -> torch.device:
    """Return the torch device for a name; ``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        ValueError: if the device is unknown or not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {device!r} is not available here; use cpu or auto") from error
    return chosen


@torch.no_grad()
def predict(
    model: nn.Module,
    crystals: Sequence[Data],
    batch_size: int = 64,
    batch_by: str = "crystals",
    device: str = "auto",
    embedding: bool = False,
    on_batch: Callable[[int], object] | None = None,
) -> Predictions:
    """Predict crystals that have their graphs.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it. It is moved to the device
            and put into evaluation mode.
        crystals: `Data` to which ``model.neighborhood()`` was applied.
        batch_size: largest number of crystals, atoms or edges in a batch.
        batch_by: what `batch_size` counts.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        embedding: whether to return the pooled features too.
        on_batch: called after each batch with its number of crystals.

    Raises:
        ValueError: if there are no crystals, or they have no graph.
    """
    check_argument(len(crystals) > 0, "crystals", "at least one", "none")
    place = pick_device(device)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    model.to(place).eval()
    card = getattr(model, "card", None)
    finish = make_objective(card).predict if card is not None else lambda output: output
    report = getattr(model, "truncation_report", None)
    columns: dict[str, list[Tensor]] = {"prediction": [], "target": [], "bound": [], "embedding": []}
    for batch in crystal_loader(crystals, batch_size, batch_by):
        batch = batch.to(place)
        if dtype == torch.float64:
            batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
        out: tuple[Tensor, ...] = model(batch, return_embedding=True) if embedding else (model(batch),)
        prediction = finish(out[0].float() if dtype != torch.float64 else out[0]).cpu()
        columns["prediction"].append(prediction)
        columns["target"].append(batch.y.cpu() if batch.get("y") is not None else _unknown(prediction, card))
        bound = report(batch) if report is not None else out[0].new_full((batch.num_graphs,), math.nan)
        columns["bound"].append(bound.double().cpu())
        if embedding:
            columns["embedding"].append(out[1].cpu())
        if on_batch is not None:
            on_batch(batch.num_graphs)
    return Predictions(
        ids=_names(crystals),
        prediction=torch.cat(columns["prediction"]),
        target=torch.cat(columns["target"]),
        truncation_bound=torch.cat(columns["bound"]),
        embedding=torch.cat(columns["embedding"]) if embedding else None,
        atoms=[crystal.z.cpu().clone() for crystal in crystals] if card is not None and card.level == "atom" else None,
    )


def _names(crystals: Sequence[Data]) -> list[str]:
    if isinstance(crystals, OnDiskCrystals):
        return crystals.structure_ids
    return [str(crystal.get("structure_id", index)) for index, crystal in enumerate(crystals)]


def _unknown(prediction: Tensor, card: ModelCard | None) -> Tensor:
    """Targets for crystals without any."""
    width = len(card.target_names) if card is not None else prediction.size(1)
    return prediction.new_full((len(prediction), width), math.nan)


def predict_files(
    model: nn.Module,
    paths: str | Path | Iterable[str | Path],
    batch_size: int = 64,
    batch_by: str = "crystals",
    device: str = "auto",
    on_batch: Callable[[int], object] | None = None,
    num_workers: int | None = None,
    progress: bool = False,
    devices: int = 1,
) -> list[FileRow]:
    """Predict structure files and folders of them, in order; a file that cannot be used gives a row with its error.

    The graphs are made as in training: with the arguments in ``model.card.neighborhood``.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it.
        paths: CIF, POSCAR, xyz and JSON files, and folders.
        batch_size: largest number of crystals, atoms or edges in a batch.
        batch_by: what `batch_size` counts.
        device: as in :func:`predict`.
        on_batch: called after each batch with its number of crystals.
        num_workers: processes that read files and make graphs beside this one; None for as many as pay.
        progress: whether to show a bar (on a terminal only).
        devices: number of GPUs, or of processes on the CPU, that predict; with several `on_batch` is not called.
    """
    from torch_geometric_crystal.datasets.read_structures import stream_structures

    rows: list[FileRow] = []
    with contextlib.ExitStack() as stack:
        run = _predictor(stack, model, device, devices, on_batch)
        streamed = stream_structures(
            paths, transform=TransformOfKnownElements(model), num_workers=num_workers, progress=progress
        )
        results = stack.enter_context(contextlib.closing(streamed))
        while chunk := list(itertools.islice(results, CHUNK * devices)):
            good = [result.data for result in chunk if result.data is not None]
            predictions = run(good, batch_size, batch_by) if good else None
            predicted = _file_rows(predictions) if predictions is not None else iter(())
            for result in chunk:
                name, path = result.structure_id, str(result.path)
                if result.data is None:
                    rows.append(FileRow(name, path, (), math.nan, str(result.error)))
                else:
                    rows += [dataclasses.replace(row, structure_id=name, path=path) for row in next(predicted)]
    return rows


def _predictor(
    stack: contextlib.ExitStack, model: nn.Module, device: str, devices: int, on_batch: Callable[[int], object] | None
) -> Callable[..., Predictions]:
    """A function of crystals, batch_size and batch_by that predicts, here or in processes that end with the stack."""
    if devices == 1:
        return functools.partial(predict, model, device=device, on_batch=on_batch)
    from torch_geometric_crystal.benchmark.pool import PredictionPool

    return stack.enter_context(PredictionPool(model, devices, device)).predict


def _file_rows(predictions: Predictions) -> Iterator[list[FileRow]]:
    """The rows of each crystal in turn, without its file: one, or one for each of its atoms."""
    values = map(tuple, predictions.prediction.tolist())
    for index, bound in enumerate(predictions.truncation_bound.tolist()):
        if predictions.atoms is None:
            yield [FileRow("", "", next(values), bound, "")]
        else:
            symbols = [SYMBOLS[z - 1] for z in predictions.atoms[index].tolist()]
            yield [FileRow("", "", next(values), bound, "", atom, symbol) for atom, symbol in enumerate(symbols)]


def make_graphs(
    model: nn.Module, crystals: Iterable[Data], num_workers: int | None = None, progress: bool = False
) -> list[Data]:
    """Apply the transform with which the model was trained: ``model.neighborhood(**model.card.neighborhood)``.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it.
        crystals: `Data` on the CPU.
        num_workers: processes beside this one; None for as many as pay.
        progress: whether to show a bar (on a terminal only).
    """
    from torch_geometric_crystal.datasets.processing import transform_crystals

    return transform_crystals(list(crystals), make_transform(model), num_workers, progress, "graphs")


def tolerance_of(model: nn.Module) -> float | None:
    """Return the dropped share that the model's graphs were made to tolerate; None if their cutoff has no tolerance."""
    transform = make_transform(model)
    graph = transform.transforms[0] if isinstance(transform, Compose) else transform
    return None if getattr(graph, "cutoff", None) is not None else getattr(graph, "tol", None)


def make_transform(model: nn.Module) -> Callable[[Data], Data]:
    """The transform that makes a model's graphs, with the settings of its card where it has one."""
    card = getattr(model, "card", None)
    return model.neighborhood(**(card.neighborhood if card is not None else {}))  # type: ignore[operator]


class TransformOfKnownElements:
    """The transform of :func:`make_transform`, with an ``InvalidStructureError`` for elements that the model lacks."""

    def __init__(self, model: nn.Module):
        self.transform = make_transform(model)
        self.num_elements = _num_elements(model)

    def __call__(self, data: Data) -> Data:
        """Make the graph."""
        _refuse_elements(data, self.num_elements)
        return self.transform(data)


def refuse_unknown_elements(model: nn.Module, crystals: Sequence[Data]) -> None:
    """Raise ``InvalidStructureError`` for the first crystal with an element that the model lacks.

    Crystals on the disk are not read for it: the model then refuses their batch.
    """
    number = _num_elements(model)
    for crystal in () if isinstance(crystals, OnDiskCrystals) else crystals:
        _refuse_elements(crystal, number)


def _num_elements(model: nn.Module) -> int:
    return int(getattr(model, "num_elements", MAX_ATOMIC_NUMBER))  # type: ignore[arg-type]


def _refuse_elements(data: Data, number: int) -> None:
    highest = int(data.z.max())
    if highest > number:
        raise InvalidStructureError(
            data.get("structure_id", "?"),
            f"the model knows the elements up to {SYMBOLS[number - 1]}, and it has {SYMBOLS[highest - 1]}",
            "Train a model with num_elements=118",
        )
