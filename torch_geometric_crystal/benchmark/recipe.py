"""Training recipes: typed, documented settings, and the presets that papers used.

Importing this module costs nothing (no torch), so that a command line can be built from it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHOICES: dict[str, tuple[str, ...]] = {
    "batch_by": ("crystals", "atoms", "edges"),
    "loss": ("l1", "mse"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("inverse-sqrt", "step", "one-cycle", "constant"),
}

ONE_CYCLE_START = 25.0
"""The one-cycle schedule's first learning rate is the highest one divided by this: torch's default, as are the next."""
ONE_CYCLE_END = 1e4
"""Its last learning rate is the first one divided by this."""
ONE_CYCLE_MOMENTA = (0.95, 0.85)
"""Its momentum (SGD) or first decay rate (AdamW) at the lowest and at the highest learning rate."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def make_plain(settings: Any) -> None:
    """Turn numpy's numbers in the fields of a frozen dataclass into Python's, which YAML and JSON can hold."""
    for setting in dataclasses.fields(settings):
        object.__setattr__(settings, setting.name, _plain_value(getattr(settings, setting.name)))


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain_value(part) for part in value)
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 else value


@dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""How a model is trained. The defaults are the recipe of Crystalformer's paper
    (`Taniai et al., ICLR 2024 <https://arxiv.org/abs/2403.11686>`_).

    The learning rate at step :math:`t` (counted from 0) is ``lr`` times

    * ``"inverse-sqrt"``: :math:`\sqrt{t_0 / (t_0 + t)}` with :math:`t_0` = ``schedule_steps``,
    * ``"step"``: ``schedule_factor`` from epoch ``schedule_epoch`` on, 1 before,
    * ``"one-cycle"`` (`Smith and Topin, 2018 <https://arxiv.org/abs/1708.07120>`_, as
      :class:`torch.optim.lr_scheduler.OneCycleLR` has it): along half a cosine from 1/25 to 1 over the first
      ``schedule_rise`` of all steps, then down to 1/250000 at the last; SGD's momentum or AdamW's first decay rate goes
      from 0.95 to 0.85 and back, whatever ``momentum`` and ``betas`` say. The steps are those of ``epochs``: a run
      that stops early stops high, and one that is resumed with more epochs follows the longer cycle from there on,
    * ``"constant"``: 1.

    Targets are standardised by the training set's mean and standard deviation, unless ``standardize`` is False; a
    missing target (NaN) adds nothing to the loss. Each field's help text is in its metadata;
    :func:`describe_settings` lists them.

    Raises:
        ValueError: for a value out of range, naming the setting.
    """

    epochs: int = _setting(500, "Passes over the training set")
    batch_size: int = _setting(128, "Size of a batch, in units of --batch-by")
    batch_by: str = _setting("crystals", "What a batch's size counts: crystals, atoms or edges")
    loss: str = _setting("l1", "Loss on the standardised targets: l1 or mse; a classification has the cross-entropy")
    standardize: bool = _setting(True, "Whether the model predicts standardised targets, else the plain ones")
    optimizer: str = _setting("adamw", "Optimiser: adamw or sgd")
    lr: float = _setting(5e-4, "Learning rate at the first step; the highest one of the one-cycle schedule")
    betas: tuple[float, float] = _setting((0.9, 0.98), "AdamW's two decay rates")
    momentum: float = _setting(0.9, "SGD's momentum")
    weight_decay: float = _setting(1e-5, "Weight decay of the optimiser")
    decay_vectors: bool = _setting(True, "Whether biases and the scales of norms decay, too, or matrices alone")
    schedule: str = _setting("inverse-sqrt", "Learning rate schedule: inverse-sqrt, step, one-cycle or constant")
    schedule_steps: int = _setting(4000, "Steps t0 in the inverse-sqrt schedule lr * sqrt(t0 / (t0 + t))")
    schedule_epoch: int = _setting(100, "Epoch at which the step schedule multiplies the learning rate")
    schedule_factor: float = _setting(0.1, "Factor of the step schedule")
    schedule_rise: float = _setting(0.3, "Share of all steps in which the one-cycle schedule rises")
    clip_norm: float = _setting(1.0, "Largest norm of the gradient over all weights; 0 for no clipping")
    averaging_epochs: int = _setting(
        50,
        "Average the end-of-epoch weights of the last so many epochs (of max_time's last share, if that comes first); "
        "0 for none",
    )
    patience: int = _setting(0, "Stop after so many epochs without a better validation error; 0 for never")

    def __post_init__(self) -> None:
        from torch_geometric_crystal.checks import check_argument, check_choice

        make_plain(self)
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("epochs", "batch_size", "schedule_steps"):
            value = getattr(self, name)
            check_argument(isinstance(value, int) and value >= 1, name, "an integer of at least 1", value)
        for name in ("lr", "schedule_factor"):
            check_argument(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        for name in ("weight_decay", "clip_norm", "momentum", "averaging_epochs", "patience", "schedule_epoch"):
            check_argument(getattr(self, name) >= 0, name, "a number of at least 0", getattr(self, name))
        check_argument(0.0 < self.schedule_rise < 1.0, "schedule_rise", "a share between 0 and 1", self.schedule_rise)
        betas = tuple(float(beta) for beta in self.betas)
        check_argument(len(betas) == 2 and all(0 <= b < 1 for b in betas), "betas", "two numbers in [0, 1)", self.betas)
        object.__setattr__(self, "betas", betas)

    def lr_factor(self, step: int, epoch: int, epoch_steps: int = 1) -> float:
        """Return the factor on ``lr`` at optimiser step `step` of epoch `epoch`, both counted from 0.

        Args:
            step: over all epochs.
            epoch: the epoch that the step is in.
            epoch_steps: steps of an epoch; for the one-cycle schedule, which must know where it ends.
        """
        if self.schedule == "inverse-sqrt":
            return (self.schedule_steps / (self.schedule_steps + step)) ** 0.5
        if self.schedule == "step" and epoch >= self.schedule_epoch:
            return self.schedule_factor
        if self.schedule == "one-cycle":
            first = 1.0 / ONE_CYCLE_START
            return self._along_cycle(step, epoch_steps, first, 1.0, first / ONE_CYCLE_END)
        return 1.0

    def optimizer_settings(self, step: int, epoch: int, epoch_steps: int) -> dict[str, Any]:
        """Return what the schedule sets in the optimiser before a step; arguments as :meth:`lr_factor`."""
        settings: dict[str, Any] = {"lr": self.lr * self.lr_factor(step, epoch, epoch_steps)}
        if self.schedule == "one-cycle":
            low, high = ONE_CYCLE_MOMENTA
            momentum = self._along_cycle(step, epoch_steps, low, high, low)
            settings |= {"momentum": momentum} if self.optimizer == "sgd" else {"betas": (momentum, self.betas[1])}
        return settings

    def _along_cycle(self, step: int, epoch_steps: int, first: float, top: float, last: float) -> float:
        """The value at a step of a cycle that goes from `first` to `top` to `last` along half cosines."""
        end = self.epochs * epoch_steps - 1.0
        peak = self.schedule_rise * (end + 1.0) - 1.0
        if step <= peak:
            start, stop, share = first, top, step / peak if peak > 0.0 else 1.0
        else:
            start, stop, share = top, last, min((step - peak) / (end - peak), 1.0)
        return stop + (start - stop) * 0.5 * (1.0 + math.cos(math.pi * share))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values (tuples as lists), for YAML and JSON."""
        values = dataclasses.asdict(self)
        values["betas"] = list(self.betas)
        return values

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Recipe":
        """Make a recipe from a mapping, which may name a ``preset`` that the other entries change.

        Raises:
            ValueError: for an unknown preset or setting.
        """
        from torch_geometric_crystal.checks import check_choice

        settings = dict(settings)
        preset = settings.pop("preset", "common")
        check_choice("recipe preset", preset, tuple(PRESETS))
        names = [f.name for f in dataclasses.fields(cls)]
        for name in settings:
            check_choice("recipe setting", name, names)
        return cls(**PRESETS[preset] | settings)


@dataclass(frozen=True)
class Setting:
    """One documented setting: its name, its type, its default value and its help text."""

    name: str
    type: Any
    default: Any
    help: str


def describe_settings(settings_class: type) -> list[Setting]:
    """List the documented fields of a settings dataclass, in order: the manual and the flags are made from it."""
    return [
        Setting(f.name, f.type, f.default, f.metadata["help"])
        for f in dataclasses.fields(settings_class)
        if "help" in f.metadata
    ]


PRESETS: dict[str, dict[str, Any]] = {
    "common": {},
    "crystalformer": {},
    "crystalformer-jarvis": {"epochs": 800, "batch_size": 256},
    "crystalformer-jarvis-mbj": {"epochs": 1600, "batch_size": 256},
    "cgcnn": {
        "epochs": 1000,
        "batch_size": 256,
        "loss": "mse",
        "optimizer": "sgd",
        "lr": 0.01,
        "weight_decay": 0.0,
        "schedule": "step",
        "clip_norm": 0.0,
        "averaging_epochs": 0,
    },
    "alignn": {
        "epochs": 300,
        "batch_size": 64,
        "loss": "mse",
        "standardize": False,
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "decay_vectors": False,
        "schedule": "one-cycle",
        "clip_norm": 0.0,
        "averaging_epochs": 0,
    },
}
"""Named recipes, by what differs from the defaults of :class:`Recipe`. ``"crystalformer"``: the paper's (Materials
Project setting); ``"crystalformer-jarvis"`` and ``"crystalformer-jarvis-mbj"``: its settings for JARVIS-DFT and for the
MBJ gap there. ``"cgcnn"``: that of CGCNN's own code with the 1,000 epochs that its author advises. ``"alignn"``:
that of ALIGNN's paper and code, which learn plain targets. ``"common"``: one recipe for every model (that of
``"crystalformer"``), so that a difference between models is not one between recipes."""


def default_recipe(model: str) -> Recipe:
    """Return the preset of a model's own paper, or the common recipe where there is none."""
    return Recipe(**PRESETS.get(model, PRESETS["common"]))
