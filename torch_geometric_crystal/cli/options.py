"""Flags shared by commands, and flags made from documented settings."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.benchmark.recipe import PRESETS, Recipe, Setting, describe_settings

Checkpoint = Annotated[
    list[Path], typer.Option("--checkpoint", "-c", help="A .ckpt or .safetensors file, or a run's folder.")
]
Checkpoints = Annotated[
    list[Path],
    typer.Option(
        "--checkpoint",
        "-c",
        help="A .ckpt or .safetensors file, or a run's folder; several (-c a -c b) for an ensemble.",
    ),
]
Weights = Annotated[str, typer.Option(help="auto (averaged weights where there are any), averaged or last.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Largest batch, in units of --batch-by.")]
BatchBy = Annotated[str, typer.Option(help="What a batch's size counts: crystals, atoms or edges.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Devices = Annotated[int, typer.Option(min=1, help="GPUs, or processes on the CPU, that predict together.")]
SplitSeed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of the random split of data without its own. Default: that of the training."),
]
ValShare = Annotated[float | None, typer.Option(help="Its validation share. Default: that of the training.")]
TestShare = Annotated[float | None, typer.Option(help="Its test share. Default: that of the training.")]
DATA_HELP = (
    "A bundled set (flla_2015, elastic_2015, matbench_phonons, carbon_24, mp_20_val) or a path: a folder of CIF/POSCAR "
    "files with id_prop.csv, Matbench or JARVIS JSON, CSV, ASE database, extended XYZ, compact .npz."
)


def one_checkpoint(checkpoints: Sequence[Path]) -> Path:
    """The checkpoint of a command that takes one.

    Raises:
        ValueError: if several were given.
    """
    if len(checkpoints) > 1:
        raise ValueError("--checkpoint: expected one; tgcrystal predict and calibrate take several, as an ensemble")
    return checkpoints[0]


def with_recipe_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per setting of :class:`Recipe`; those that were given arrive as the dict ``recipe``."""
    settings = describe_settings(Recipe)
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "recipe"]
    flags = [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                setting.type | None,
                typer.Option(
                    help=_help(setting),
                    rich_help_panel="Recipe",
                    show_default=False,
                    metavar="2 <float>" if setting.name == "betas" else None,  # the whole type would cut long names
                ),
            ],
        )
        for setting in settings
    ]

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        given = {setting.name: kwargs.pop(setting.name, None) for setting in settings}
        command(*args, recipe={name: value for name, value in given.items() if value is not None}, **kwargs)

    wrapper.__signature__ = signature.replace(parameters=own + flags)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in own + flags}
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    return wrapper


def help_text(text: str) -> str:
    """Join the lines of each paragraph, to be wrapped at the terminal's width; indented lines stay as they are."""
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else " ".join(p.split()) for p in paragraphs)


def _help(setting: Setting) -> str:
    """The setting's help with its default, or with one for each preset that differs."""
    defaults = {preset: values.get(setting.name, setting.default) for preset, values in PRESETS.items()}
    shown = str(setting.default)
    if len({str(value) for value in defaults.values()}) > 1:
        shown = ", ".join(f"{preset} {defaults[preset]}" for preset in ("crystalformer", "cgcnn", "alignn"))
    return f"{setting.help}. [dim](default: {shown})[/dim]"


_EXPONENTIAL = re.compile(r"[+-]?\d+[eE][+-]?\d+")


def parse_settings(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """Parse ``name=value`` texts, values as YAML: ``num_blocks=2``, ``domain=real``, ``reciprocal=true``.

    ``tol=1e-3`` is a number, too, for which YAML 1.1 asks for a point.

    Raises:
        ValueError: for a text without ``=``.
    """
    import yaml

    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{flag}: expected name=value, received {text!r}")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{flag}: the value in {text!r} is not valid YAML") from error
        is_number = isinstance(parsed, str) and _EXPONENTIAL.fullmatch(parsed)
        settings[name.strip()] = float(parsed) if is_number else parsed
    return settings
