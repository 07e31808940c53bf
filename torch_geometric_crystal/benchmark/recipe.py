"""Training recipes: typed, documented settings, and the presets that papers used.

Importing this module costs nothing (no torch), so that a command line can be built from it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHOICES: dict[str, tuple[str, ...]] = {
    "batch_by": ("crystals", "atoms", "edges"),
    "loss": ("l1", "mse"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("inverse-sqrt", "step", "constant"),
}


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    r"""How a model is trained. The defaults are the recipe of Crystalformer's paper
    (`Taniai et al., ICLR 2024 <https://arxiv.org/abs/2403.11686>`_).

    The learning rate at step :math:`t` (counted from 0) is ``lr`` times

    * ``"inverse-sqrt"``: :math:`\sqrt{t_0 / (t_0 + t)}` with :math:`t_0` = ``schedule_steps``,
    * ``"step"``: ``schedule_factor`` from epoch ``schedule_epoch`` on, 1 before,
    * ``"constant"``: 1.

    Targets are standardised by the training set's mean and standard deviation; a missing target (NaN) adds nothing
    to the loss. Each field's help text is in its metadata; :func:`describe_settings` lists them.

    Raises:
        ValueError: for a value out of range, naming the setting.
    """

    epochs: int = _setting(500, "Passes over the training set")
    batch_size: int = _setting(128, "Size of a batch, in units of --batch-by")
    batch_by: str = _setting("crystals", "What a batch's size counts: crystals, atoms or edges")
    loss: str = _setting("l1", "Loss on the standardised targets: l1 or mse")
    optimizer: str = _setting("adamw", "Optimiser: adamw or sgd")
    lr: float = _setting(5e-4, "Learning rate at the first step")
    betas: tuple[float, float] = _setting((0.9, 0.98), "AdamW's two decay rates")
    momentum: float = _setting(0.9, "SGD's momentum")
    weight_decay: float = _setting(1e-5, "Weight decay of the optimiser")
    schedule: str = _setting("inverse-sqrt", "Learning rate schedule: inverse-sqrt, step or constant")
    schedule_steps: int = _setting(4000, "Steps t0 in the inverse-sqrt schedule lr * sqrt(t0 / (t0 + t))")
    schedule_epoch: int = _setting(100, "Epoch at which the step schedule multiplies the learning rate")
    schedule_factor: float = _setting(0.1, "Factor of the step schedule")
    clip_norm: float = _setting(1.0, "Largest norm of the gradient over all weights; 0 for no clipping")
    averaging_epochs: int = _setting(
        50,
        "Average the end-of-epoch weights of the last so many epochs (of max_time's last share, if that comes first); "
        "0 for none",
    )
    patience: int = _setting(0, "Stop after so many epochs without a better validation error; 0 for never")

    def __post_init__(self) -> None:
        from torch_geometric_crystal.checks import check_argument, check_choice

        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("epochs", "batch_size", "schedule_steps"):
            value = getattr(self, name)
            check_argument(isinstance(value, int) and value >= 1, name, "an integer of at least 1", value)
        for name in ("lr", "schedule_factor"):
            check_argument(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        for name in ("weight_decay", "clip_norm", "momentum", "averaging_epochs", "patience", "schedule_epoch"):
            check_argument(getattr(self, name) >= 0, name, "a number of at least 0", getattr(self, name))
        betas = tuple(float(beta) for beta in self.betas)
        check_argument(len(betas) == 2 and all(0 <= b < 1 for b in betas), "betas", "two numbers in [0, 1)", self.betas)
        object.__setattr__(self, "betas", betas)

    def lr_factor(self, step: int, epoch: int) -> float:
        """Return the factor on ``lr`` at optimiser step `step` of epoch `epoch`, both counted from 0."""
        if self.schedule == "inverse-sqrt":
            return (self.schedule_steps / (self.schedule_steps + step)) ** 0.5
        if self.schedule == "step" and epoch >= self.schedule_epoch:
            return self.schedule_factor
        return 1.0

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
}
"""Named recipes, by what differs from the defaults of :class:`Recipe`. ``"crystalformer"``: the paper's (Materials
Project setting). ``"cgcnn"``: that of CGCNN's own code with the 1,000 epochs that its author advises. ``"common"``: one
recipe for every model (that of ``"crystalformer"``), so that a difference between models is not one between recipes."""


def default_recipe(model: str) -> Recipe:
    """Return the preset of a model's own paper, or the common recipe where there is none."""
    return Recipe(**PRESETS.get(model, PRESETS["common"]))
