"""Checkpoints that are whole or not there, that say how to use themselves, and that run no code when read."""

import functools
import inspect
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from torch_geometric_crystal import __version__
from torch_geometric_crystal.benchmark.config import LEVELS, TASKS
from torch_geometric_crystal.checks import MissingDependencyError, check_argument, check_choice
from torch_geometric_crystal.datasets.atomic_write import atomic_write

FORMAT = "torch_geometric_crystal checkpoint"
FORMAT_VERSION = 1
WEIGHTS = ("auto", "averaged", "last")
_LISTS = ("target_names", "units", "classes", "trainings")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file, the fault and the remedy."""

    def __init__(self, path: str | Path, fault: str, remedy: str):
        super().__init__(f"checkpoint {str(path)!r}: {fault}. {remedy}")
        self.path = str(path)
        self.fault = fault
        self.remedy = remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.fault, self.remedy)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a set of weights needs to be used: the model, the graph that it takes, and what it predicts.

    Args:
        model: name of the model in ``torch_geometric_crystal.nn.models.MODELS``.
        model_options: constructor arguments, as ``model.config()`` gives them.
        neighborhood: all arguments of the transform that made the graphs, for ``model.neighborhood``.
        graph: the transform that this gave, as text; a model for which it would now be another one is refused.
        target_names: names of the predicted quantities.
        units: their units, in the same order.
        library_version: version of this library that wrote the weights.
        task: ``"regression"`` or ``"classification"``.
        level: ``"crystal"``, or ``"atom"`` where each atom has its own targets.
        classes: names of the classes, in the order of the model's outputs; none for a regression.
        split: ``seed``, ``val_fraction`` and ``test_fraction`` of the random split that training used, and a hash of
            the ``structures`` that were cut; empty where the data have a split of their own.
        trainings: the trainings that gave the weights, in order: the name of the ``data``, the ``fold`` of a
            benchmark's task (None of other data) and the ``settings``.
    """

    model: str
    model_options: Mapping[str, Any]
    neighborhood: Mapping[str, Any] = field(default_factory=dict)
    graph: str = ""
    target_names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    library_version: str = __version__
    task: str = "regression"
    level: str = "crystal"
    classes: tuple[str, ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    trainings: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in _LISTS:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choice("task", self.task, TASKS)
        check_choice("level", self.level, LEVELS)
        check_argument(
            len(self.units) == len(self.target_names), "units", f"{len(self.target_names)} (one a target)", self.units
        )


def build_model(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Construct a model by its name in ``torch_geometric_crystal.nn.models.MODELS``.

    Raises:
        ValueError: for an unknown name or constructor argument.
    """
    from torch_geometric_crystal.nn.models import MODELS

    check_choice("model", name, sorted(MODELS))
    try:
        return MODELS[name](**options)
    except TypeError as error:
        raise ValueError(f"model_options of {name}: {error}") from error


def save_checkpoint(
    path: str | Path,
    card: ModelCard,
    state_dict: Mapping[str, Tensor],
    averaged_state_dict: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically: a crash or a full disk leaves the old file whole.

    Args:
        path: the file.
        card: how to use the weights.
        state_dict: the model's weights, normalisation of the targets included.
        averaged_state_dict: their running mean, if there is one.
        training: what a resumed run needs; tensors, numbers, strings, lists and dictionaries alone.
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "card": asdict(card) | {name: list(getattr(card, name)) for name in _LISTS},
        "state_dict": dict(state_dict),
        "averaged_state_dict": None if averaged_state_dict is None else dict(averaged_state_dict),
        "training": None if training is None else dict(training),
    }
    with atomic_write(path) as file:
        torch.save(content, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Tensors and plain values only: a file that holds anything else is refused.

    Returns:
        A dictionary of ``card`` (:class:`ModelCard`), ``state_dict``, ``averaged_state_dict`` and ``training``.

    Raises:
        CheckpointError: if the file is missing, truncated, not a checkpoint of this library, of a newer format, or
            holds Python objects.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "no such file", "Give the path of a .ckpt file, or a run's folder.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a pickle protocol that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds Python objects, which could run code, or is damaged; nothing in it was executed"
        raise CheckpointError(
            path, reason, "Use a checkpoint written by tgcrystal, from a source that you trust."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        remedy = "Use another one of the run (best.ckpt or last.ckpt), or train again."
        raise CheckpointError(path, "truncated or damaged", remedy) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(path, "not a checkpoint of torch_geometric_crystal", "Train with tgcrystal to make one.")
    if content.get("format_version") != FORMAT_VERSION:
        fault = f"format version {content.get('format_version')!r}, this library reads {FORMAT_VERSION}"
        raise CheckpointError(path, fault, "Update torch_geometric_crystal.")
    try:
        names = {f.name for f in fields(ModelCard)}
        content["card"] = ModelCard(**{k: v for k, v in content["card"].items() if k in names})
        content["state_dict"].keys()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(path, f"incomplete ({error})", "Use another checkpoint, or train again.") from error
    return content


def load_model(path: str | Path, weights: str = "auto") -> nn.Module:
    """Load a model for prediction, in evaluation mode on the CPU; ``model.card`` is its :class:`ModelCard`.

    ``model.predict_structures([...])`` is
    :func:`~torch_geometric_crystal.benchmark.structures.predict_structures` with this model.

    Args:
        path: a ``.ckpt`` file, a run's folder, or a ``.safetensors`` file of :func:`export_model`.
        weights: ``"averaged"`` for the running mean of the last epochs' weights, ``"last"`` for those of the epoch at
            which the file was written (of a folder, of its last one), ``"auto"`` for the mean where the file has one;
            of a folder, for what the run reports: the mean, else the best epoch by validation, else the last one.

    Raises:
        CheckpointError: if the file cannot be used.
    """
    check_choice("weights", weights, WEIGHTS)
    path = Path(path)
    if path.suffix == ".safetensors":
        if weights != "auto":
            raise CheckpointError(path, "has one set of weights", "Ask for weights='auto'.")
        return _load_exported(path)
    if path.is_dir() and weights == "auto":
        path, weights = next(iter(weights_of_run(path).values()))
    path = path / "last.ckpt" if path.is_dir() else path
    content = read_checkpoint(path)
    averaged = content["averaged_state_dict"]
    if weights == "averaged" and averaged is None:
        raise CheckpointError(path, "has no averaged weights", "Ask for weights='auto' or 'last'.")
    state_dict = averaged if averaged is not None and weights != "last" else content["state_dict"]
    return assemble_model(path, content["card"], state_dict)


def weights_of_run(folder: Path) -> dict[str, tuple[Path, str]]:
    """The weights in a run's folder by name, each as arguments for :func:`load_model`, those first that it reports.

    Raises:
        CheckpointError: if last.ckpt cannot be used.
    """
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    found = {} if read_checkpoint(last)["averaged_state_dict"] is None else {"averaged": (last, "averaged")}
    if best.is_file():
        found["best"] = (best, "auto")
    return {**found, "last": (last, "last")}


def assemble_model(path: str | Path, card: ModelCard, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Build the model that a card describes, give it its weights, its card and ``predict_structures``.

    Args:
        path: where the weights come from, for errors.
        card: how to use them.
        state_dict: the weights; the model is in float64 where all of them are.

    Raises:
        CheckpointError: if the weights do not fit, or this version would make other graphs than they were trained with.
    """
    from torch_geometric_crystal.benchmark.structures import predict_structures

    try:
        model = build_model(card.model, card.model_options)
        dtypes = {value.dtype for value in state_dict.values() if value.is_floating_point()}
        if dtypes == {torch.float64}:
            model.double()
        model.load_state_dict(state_dict)
    except (ValueError, RuntimeError, AttributeError) as error:
        fault = f"does not fit its model {card.model!r} ({' '.join(str(error).split())[:300]})"
        raise CheckpointError(
            path, fault, f"It was written by version {card.library_version}; install that one, or train again."
        ) from error
    graph = repr(model.neighborhood(**card.neighborhood)) if card.graph else ""  # type: ignore[operator]
    if graph != card.graph:
        fault = f"was trained with {card.graph}, for which this version would take {graph}"
        raise CheckpointError(path, fault, f"Install version {card.library_version}, or train again.")
    model.card = card  # type: ignore[assignment]
    # A partial, unlike a bound method, can be pickled and deep-copied with the model that it holds.
    model.predict_structures = functools.partial(predict_structures, model)  # type: ignore[assignment]
    return model.eval()


def build_transform(model: nn.Module, name: str, settings: Mapping[str, Any]) -> Callable[[Data], Data]:
    """Return ``model.neighborhood(**settings)`` for the model called `name`.

    Raises:
        ValueError: for a setting that the transform does not know, or one of a wrong type or value.
    """
    try:
        return model.neighborhood(**settings)  # type: ignore[operator]
    except TypeError as error:
        raise ValueError(f"neighborhood of {name}: {error}; received {dict(settings)}") from error


def transform_settings(transform: object) -> dict[str, Any]:
    """The arguments that a transform was constructed with, the defaults included, which another version may change."""
    if isinstance(transform, Compose):
        return {name: value for part in transform.transforms for name, value in transform_settings(part).items()}
    names = inspect.signature(type(transform).__init__).parameters
    return {name: getattr(transform, name) for name in names if hasattr(transform, name)}


def export_model(model: nn.Module, path: str | Path, card: ModelCard | None = None) -> None:
    """Write a model's weights as safetensors and its card as JSON beside them (``x.safetensors``, ``x.json``).

    Args:
        model: the model.
        path: the ``.safetensors`` file.
        card: how to use the weights; ``model.card``, which :func:`load_model` sets, if None.

    Raises:
        MissingDependencyError: without safetensors.
        ValueError: if the name ends otherwise, or the JSON file would replace one that is no card.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise MissingDependencyError("safetensors", "train") from error

    path = Path(path)
    expected = "a name that ends in .safetensors (tgcrystal export: or .pt2)"
    check_argument(path.suffix == ".safetensors", "path", expected, str(path))
    card = model.card if card is None else card  # type: ignore[assignment]
    _check_replaceable(path.with_suffix(".json"))
    weights = save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    with atomic_write(path) as file:
        file.write(weights)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write(json.dumps(asdict(card), indent=2).encode())  # type: ignore[arg-type]


def _check_replaceable(path: Path) -> None:
    """Raise ``ValueError`` for a file that is there and is no card."""
    if not path.is_file():
        return
    try:
        is_card = "model_options" in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        is_card = False
    check_argument(is_card, "path", f"a name beside which no other file is called {path.name}", str(path))


def _load_exported(path: Path) -> nn.Module:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependencyError("safetensors", "train") from error

    try:
        card = ModelCard(**json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        state_dict = load_file(path)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        fault = f"its weights or the .json file beside them cannot be read ({error})"
        raise CheckpointError(path, fault, "Export the model again.") from error
    return assemble_model(path, card, state_dict)
