"""Several models of the same targets: their mean, and their spread as an uncertainty."""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.calibration import Calibration, read_calibration
from torch_geometric_crystal.benchmark.checkpoint import ModelCard, load_model
from torch_geometric_crystal.benchmark.evaluation import targets_of
from torch_geometric_crystal.benchmark.prediction import TransformOfKnownElements, make_transform, tolerance_of
from torch_geometric_crystal.benchmark.sources import choose_part, load_parts, refuse_other_crystals, split_of_training
from torch_geometric_crystal.benchmark.structures import (
    StructurePredictions,
    check_settings,
    graphs_of,
    predict_stream,
)
from torch_geometric_crystal.checks import InvalidStructureError, check_argument
from torch_geometric_crystal.datasets.check_structures import check_structures

MATCHING = ("target_names", "units", "task", "level", "classes")
"""What the cards of all members must have in common."""


@dataclass(frozen=True)
class EnsemblePredictions:
    """What M models say of n structures, in their order; NaN rows where a structure could not be used.

    Args:
        mean: (n, T) mean over the members, in the targets' units.
        spread: (n, T) standard deviation over the members, with M - 1 in the denominator.
        uncertainty: (n, T) calibrated standard deviation of the error; None without a calibration.
        members: (M, n, T) each member's prediction.
        truncation_bound: (n,) the largest of the members' certified bounds.
        faults: what is wrong with a structure, by its position.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    uncertainty: NDArray[np.float64] | None
    members: NDArray[np.float64]
    truncation_bound: NDArray[np.floating]
    faults: dict[int, InvalidStructureError]


class Ensemble:
    r"""Models trained alike but for their seed (or not alike), used together.

    .. math::
        \mu(x) = \frac{1}{M} \sum_m f_m(x), \qquad s(x)^2 = \frac{1}{M - 1} \sum_m (f_m(x) - \mu(x))^2

    after `"Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"
    <https://arxiv.org/abs/1612.01474>`_ (Lakshminarayanan et al., NeurIPS 2017), with members of one output a target.
    The spread s says where the members disagree; with a
    :class:`~torch_geometric_crystal.benchmark.calibration.Calibration` it becomes a standard deviation of the error.
    Members may be different models; each kind of graph is made once.

    Args:
        members: at least two checkpoints, or models with their ``card``.
        calibration: of these members, or the path of its JSON file.
        weights: as in :func:`~torch_geometric_crystal.benchmark.load_model`.

    Raises:
        ValueError: if there are fewer than two members, they do not have the same targets and units, or the calibration
            was made for others.
        CheckpointError: if a file cannot be used.
    """

    def __init__(
        self,
        members: Sequence[nn.Module | str | Path],
        calibration: Calibration | str | Path | None = None,
        weights: str = "auto",
    ):
        one = isinstance(members, (str, Path, nn.Module))
        check_argument(not one and len(members) >= 2, "members", "at least two models", 1 if one else len(members))
        names = [str(m) if isinstance(m, (str, Path)) else f"members[{k}]" for k, m in enumerate(members)]
        self.members = [load_model(m, weights) if isinstance(m, (str, Path)) else m for m in members]
        _check_alike(names, self.members)
        self.card: ModelCard = self.members[0].card  # type: ignore[assignment]
        self.fingerprints = tuple(fingerprint(model) for model in self.members)
        repeated = len(set(self.fingerprints)) < len(self.fingerprints)
        if repeated:
            raise ValueError(f"members: expected models with weights of their own, two of {names} have the same")
        self.calibration = read_calibration(calibration) if isinstance(calibration, (str, Path)) else calibration
        if self.calibration is not None:
            self.calibration.check_members(self.fingerprints, self.card.target_names)

    def predict_structures(
        self,
        structures: Sequence[Any],
        *,
        on_error: str = "raise",
        batch_size: int = 64,
        batch_by: str = "crystals",
        device: str = "auto",
        num_workers: int | None = None,
        progress: bool = False,
    ) -> EnsemblePredictions:
        """Predict pymatgen structures and ASE atoms; arguments and errors as those of
        :func:`~torch_geometric_crystal.benchmark.predict_structures`.
        """
        check_settings(on_error, batch_size, batch_by, device)
        structures = check_structures(structures)
        settings = (batch_size, batch_by, device, False)
        return self._combine(lambda model: graphs_of(model, structures, num_workers, progress), settings, on_error)

    def predict_files(
        self,
        paths: str | Path | Iterable[str | Path],
        batch_size: int = 64,
        batch_by: str = "crystals",
        device: str = "auto",
        num_workers: int | None = None,
        progress: bool = False,
    ) -> tuple[list[tuple[str, str]], EnsemblePredictions]:
        """Predict structure files and folders of them.

        Returns:
            name and path of each structure, and the predictions in the same order.
        """
        from torch_geometric_crystal.datasets.read_structures import stream_structures

        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        names: list[tuple[str, str]] = []

        def graphs(model: nn.Module) -> Iterator[Data | InvalidStructureError]:
            names.clear()
            streamed = stream_structures(
                paths, transform=TransformOfKnownElements(model), num_workers=num_workers, progress=progress
            )
            with contextlib.closing(streamed) as results:
                for result in results:
                    names.append((result.structure_id, str(result.path)))
                    fault = InvalidStructureError(result.structure_id, str(result.error), "")
                    yield fault if result.data is None else result.data

        predictions = self._combine(graphs, (batch_size, batch_by, device, False), "nan")
        return names, predictions

    def predict_part(
        self,
        data: str,
        part: str = "val",
        seed: int | None = None,
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        batch_size: int = 64,
        batch_by: str = "crystals",
        device: str = "auto",
        progress: bool = False,
    ) -> tuple[list[str], EnsemblePredictions, NDArray[np.float64]]:
        """Predict a part of a data set with known targets.

        Args:
            data: a bundled set's name or a path.
            part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
            seed: seed of the random split of data without its own; None for that of the members' training.
            val_fraction: likewise, share to validate on.
            test_fraction: likewise, share to test on.
            batch_size: largest number of crystals, atoms or edges in a batch.
            batch_by: what `batch_size` counts.
            device: as in :func:`~torch_geometric_crystal.benchmark.predict`.
            progress: whether to show a bar while graphs are made.

        Returns:
            the crystals' names, the predictions and the targets (n, T).

        Raises:
            ValueError: for a part of data that the members' trainings cut differently, or of other crystals, unless
                all three are given; if a crystal is not one for all members.
        """
        crystals: list[Data] = []
        ids: list[str] = []
        given = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
        splits = [split_of_training(model.card, part, **given) for model in self.members]

        def graphs(model: nn.Module) -> list[Data]:
            names = self.card.target_names
            parts = load_parts(data, names, make_transform(model), **splits[0], progress=progress)
            if parts.split and part != "all":
                _check_one_split(splits)
            for member in self.members:
                refuse_other_crystals(member.card, parts, part, **given)
            before = list(ids)
            crystals[:] = choose_part(parts, part)
            ids[:] = (str(crystal.get("structure_id", index)) for index, crystal in enumerate(crystals))
            if before and ids != before:
                odd = min(set(ids) ^ set(before))
                raise ValueError(
                    f"data: expected crystals that all members can take; {odd!r} in {data} is none: remove it"
                )
            return list(crystals)

        predictions = self._combine(graphs, (batch_size, batch_by, device, False), "raise")
        return ids, predictions, targets_of(crystals).double().numpy()

    def tolerance(self) -> float | None:
        """The largest dropped share that the members' graphs tolerate; None if one has a fixed cutoff."""
        tolerances = [tolerance_of(model) for model in self.members]
        known = [tolerance for tolerance in tolerances if tolerance is not None]
        return max(known) if len(known) == len(tolerances) else None

    def _combine(
        self,
        graphs: Callable[[nn.Module], Iterable[Data | InvalidStructureError]],
        settings: tuple[int, str, str, bool],
        on_error: str,
    ) -> EnsemblePredictions:
        """Predict with the members, those on the same graph together, and take mean and spread."""
        results: dict[int, StructurePredictions] = {}
        order = sorted(range(len(self.members)), key=lambda k: _graph_key(self.members[k]))
        for _, group in itertools.groupby(order, key=lambda k: _graph_key(self.members[k])):
            indices = list(group)
            models = [self.members[index] for index in indices]
            found = predict_stream(models, graphs(models[0]), settings, on_error)
            results.update(zip(indices, found, strict=True))
        parts = [results[index] for index in range(len(self.members))]
        members = np.stack([part.prediction.astype(np.float64) for part in parts])
        spread = members.std(axis=0, ddof=1)
        return EnsemblePredictions(
            mean=members.mean(axis=0),
            spread=spread,
            uncertainty=None if self.calibration is None else self.calibration.apply(spread),
            members=members,
            truncation_bound=np.fmax.reduce([part.truncation_bound for part in parts]),
            faults={k: fault for part in reversed(parts) for k, fault in part.faults.items()},
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.members)} models of {', '.join(self.card.target_names)})"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's weights: by it a calibration knows its members."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_alike(names: Sequence[str], members: Sequence[nn.Module]) -> None:
    first: Any = getattr(members[0], "card", None)
    for name, model in zip(names, members, strict=True):
        card: Any = getattr(model, "card", None)
        check_argument(card is not None, "members", "models with a card, as load_model returns them", name)
        for key in MATCHING:
            expected, received = (getattr(c, key, None) for c in (first, card))
            if expected != received:
                raise ValueError(
                    f"members: expected models of the same {key}; {names[0]} has {expected!r}, {name} has {received!r}"
                )
    check_argument(getattr(first, "level", "crystal") == "crystal", "members", "models of crystals", "one of atoms")


def _check_one_split(splits: Sequence[dict[str, Any]]) -> None:
    for split in splits:
        if split != splits[0]:
            raise ValueError(
                f"members: expected models trained on one random split, received {splits[0]} and {split}: the training "
                "crystals of one are in the validation part of another. Train all with the same --split-seed and "
                "fractions, or take crystals that none was trained on, all of them (--split all)"
            )


def _graph_key(model: nn.Module) -> tuple[str, str]:
    """What decides whether members can share graphs: the transform with all its settings, and the precision."""
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    transform = make_transform(model)
    return type(transform).__name__ + repr(sorted(vars(transform).items())), str(dtype)
