"""The settings of one run, as they are written to and read from ``config.yaml``."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_geometric_crystal.benchmark.recipe import PRESETS, Recipe, default_recipe, make_plain

PRECISIONS = ("32", "64", "bf16-mixed")
TASKS = ("regression", "classification")
LEVELS = ("crystal", "atom")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a training run.

    Args:
        data: name of a bundled data set, or path of a file or folder.
        targets: names of the targets to learn; empty for the data set's first.
        task: ``"regression"``, or ``"classification"`` for one target of classes: texts or whole numbers.
        level: ``"crystal"``, or ``"atom"`` for targets with a value for each atom.
        model: name of the model in ``torch_geometric_crystal.nn.models.MODELS``.
        model_options: constructor arguments of the model.
        neighborhood: arguments of ``model.neighborhood``, such as ``{"tol": 1e-3}``.
        recipe: how to train.
        seed: seed of the weights, of the order of the batches and, without `split_seed`, of a random split.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        val_fraction: share of the crystals to validate on, where the data set has no split of its own.
        test_fraction: likewise, to test on.
        split_seed: seed of a random split, the same for the members of an ensemble; None for `seed`.
        precision: one of ``"32"``, ``"64"``, ``"bf16-mixed"``.
        compile: whether to run the model through :func:`torch.compile`.
        cuda_graphs: whether training steps are replayed from CUDA graphs, with batches padded to a few sizes;
            Crystalformer on an NVIDIA GPU.
        max_time: training time in minutes after which to stop, resumed parts included; None for no limit.
        init_from: checkpoint or run's folder whose weights to start from; architecture and graph are then its own,
            but for what ``model_options`` and ``neighborhood`` change. The head is new where task, level, targets or
            classes differ. Empty for random weights.
        freeze: patterns, as ``fnmatch`` has them, of names of parameters that training leaves as they are.
        devices: number of processes that share each batch: GPUs, or processes on the CPU.
        loader_workers: processes, of each device, that read and join batches ahead of training.

    Raises:
        ValueError: for a value out of range, naming the setting.
    """

    data: str = ""
    targets: tuple[str, ...] = ()
    task: str = "regression"
    level: str = "crystal"
    model: str = "crystalformer"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    neighborhood: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int | None = None
    device: str = "auto"
    precision: str = "32"
    compile: bool = False
    cuda_graphs: bool = False
    max_time: float | None = None
    init_from: str = ""
    freeze: tuple[str, ...] = ()
    devices: int = 1
    loader_workers: int = 0

    def __post_init__(self) -> None:
        from torch_geometric_crystal.checks import check_argument, check_choice

        make_plain(self)
        for name in ("targets", "freeze"):
            value = getattr(self, name)
            check_argument(not isinstance(value, str), name, "a list of texts", value)
            object.__setattr__(self, name, tuple(value))
        expected = "the name of a bundled set or a path (CrystalRegressor takes structures in memory)"
        check_argument(isinstance(self.data, str | os.PathLike), "data", expected, type(self.data).__name__)
        for name in ("data", "init_from"):
            object.__setattr__(self, name, str(getattr(self, name)))
        object.__setattr__(self, "precision", str(self.precision))
        for name, choices in {"precision": PRECISIONS, "task": TASKS, "level": LEVELS}.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("compile", "cuda_graphs"):
            check_argument(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        self._check_combinations()
        seeds = {"seed": self.seed} | ({} if self.split_seed is None else {"split_seed": self.split_seed})
        for name, seed in seeds.items():
            check_argument(isinstance(seed, int) and seed >= 0, name, "an integer of at least 0", seed)
        fractions = {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction}
        expected = "a share of at least 0 that leaves some crystals to train on"
        for name, share in fractions.items():
            check_argument(0 <= share < 1, name, expected, share)
        check_argument(sum(fractions.values()) < 1, ", ".join(fractions), expected, tuple(fractions.values()))
        check_argument(self.max_time is None or self.max_time > 0, "max_time", "minutes above 0", self.max_time)

    def _check_combinations(self) -> None:
        from torch_geometric_crystal.checks import check_argument

        check_argument(
            not (self.compile and self.cuda_graphs), "compile, cuda_graphs", "one of them at most", (True, True)
        )
        check_argument(
            not (self.cuda_graphs and self.level == "atom"), "cuda_graphs", "false for targets of each atom", True
        )
        check_argument(
            isinstance(self.devices, int) and self.devices >= 1, "devices", "an integer of at least 1", self.devices
        )
        check_argument(
            isinstance(self.loader_workers, int) and self.loader_workers >= 0,
            "loader_workers", "an integer of at least 0", self.loader_workers,
        )  # fmt: skip
        fast = self.compile or self.cuda_graphs
        check_argument(not (fast and self.devices > 1), "compile, cuda_graphs", "neither with several devices", True)
        check_argument(
            self.devices == 1 or ":" not in self.device, "device", "a kind of device, for several of them", self.device
        )

    def to_record(self) -> dict[str, Any]:
        """Return the settings that can change the result of a training on given crystals, as :meth:`to_dict` does."""
        left_out = ("data", "targets", "device", "test_fraction", "split_seed", "task")
        return {name: value for name, value in self.to_dict().items() if name not in left_out}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for YAML and JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["targets"], values["freeze"] = list(self.targets), list(self.freeze)
        values["model_options"] = dict(self.model_options)
        values["neighborhood"] = dict(self.neighborhood)
        values["recipe"] = self.recipe.to_dict()
        return values

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "RunConfig":
        """Make a configuration from a mapping; ``recipe`` may be a preset's name or a mapping.

        A recipe given as a mapping without ``preset`` starts from the model's own.

        Raises:
            ValueError: for an unknown setting.
        """
        from torch_geometric_crystal.checks import check_choice

        settings = dict(settings)
        names = [f.name for f in dataclasses.fields(cls)]
        for name in settings:
            check_choice("configuration", name, names)
        model = settings.get("model", cls.model)
        recipe = settings.get("recipe")
        if recipe is None:
            settings["recipe"] = default_recipe(model)
        elif not isinstance(recipe, Recipe):
            recipe = {"preset": recipe} if isinstance(recipe, str) else dict(recipe)
            settings["recipe"] = Recipe.from_dict({"preset": model if model in PRESETS else "common"} | recipe)
        return cls(**settings)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the settings in a YAML file, to be changed and given to :meth:`RunConfig.from_dict`.

    Raises:
        ValueError: if the file is not YAML with named settings.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected 'name: value' lines, received {type(values).__name__}")
    return values


def write_config(config: RunConfig, path: str | Path) -> None:
    """Write a configuration as YAML, atomically."""
    import yaml

    from torch_geometric_crystal.datasets.atomic_write import atomic_write

    with atomic_write(path) as file:
        file.write(yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
