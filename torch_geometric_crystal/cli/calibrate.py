"""``tgcrystal calibrate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import console, show_files, warn
from torch_geometric_crystal.cli.options import (
    DATA_HELP,
    BatchBy,
    BatchSize,
    Checkpoints,
    Device,
    SplitSeed,
    TestShare,
    ValShare,
    Weights,
    help_text,
)

HELP = """Calibrate the spread of an ensemble: from the members' disagreement to the standard deviation of the error.

On crystals with known targets that no member was trained on, it finds the two numbers of uncertainty = scale * spread +
offset (maximum likelihood of Gaussian errors; Palmer et al., npj Comput. Mater. 8, 115, 2022), and checks them on
others. Writes calibration.json, which tgcrystal predict takes, calibration.csv and calibration.png.

Data without a split of its own is cut at random, as the members' training cut it, for which all need the same
--split-seed of tgcrystal train. Members with splits of their own were trained on crystals of each other's validation
part: for them keep a file of crystals apart, and give it with --split all.

Examples:

  tgcrystal calibrate -c runs/a -c runs/b -c runs/c --data flla_2015 --output runs/ensemble

  tgcrystal predict -c runs/a -c runs/b -c runs/c --calibration runs/ensemble/calibration.json cifs/
"""


def calibrate(
    checkpoints: Checkpoints,
    data: Annotated[str, typer.Option("--data", "-d", help=DATA_HELP)],
    split: Annotated[str, typer.Option(help="Part to calibrate on: train, val, test, or all crystals.")] = "val",
    check_split: Annotated[
        str | None, typer.Option(help="Part to check on; default: test, or that of --split where this is all or test.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("calibration"),
    weights: Weights = "auto",
    batch_size: BatchSize = 64,
    batch_by: BatchBy = "crystals",
    device: Device = "auto",
    seed: SplitSeed = None,
    val_fraction: ValShare = None,
    test_fraction: TestShare = None,
) -> None:
    """Calibrate the spread of an ensemble of checkpoints."""
    from torch_geometric_crystal.benchmark.calibrate_run import run_calibration, was_trained_on
    from torch_geometric_crystal.benchmark.ensemble import Ensemble
    from torch_geometric_crystal.benchmark.sources import bundled_datasets

    ensemble = Ensemble(checkpoints, weights=weights)
    given = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
    known = all(model.card.split for model in ensemble.members) and set(given.values()) == {None}
    if split != "all" and data not in bundled_datasets() and not known:
        warn(f"the {split} part of {data} is not drawn as in training: no member may have been trained on it")
    check_split = check_split or (split if split in ("all", "test") else "test")
    for part in dict.fromkeys((split, check_split)):
        if was_trained_on(ensemble, data, part):
            name = repr(Path(data).name)
            warn(f"members were trained on a set called {name}: if on this {part} part, errors elsewhere are larger")
    settings: dict[str, Any] = given | {
        "batch_size": batch_size,
        "batch_by": batch_by,
        "device": device,
        "progress": True,
    }
    result = run_calibration(ensemble, data, split, check_split, output, **settings)
    for (target, kinds), unit in zip(result.items(), ensemble.card.units, strict=True):
        console().print(metrics_table(target, unit, check_split, kinds))
    if check_split == split:
        warn(f"checked on the crystals of the calibration itself ({split}): expect somewhat more error on others")
    show_files(output, ["calibration.json", "calibration.csv", "calibration.png"])


def metrics_table(target: str, unit: str, part: str, kinds: Mapping[str, Mapping[str, float]]) -> Any:
    """One target's metrics of the bare spread and of the calibrated uncertainty, as a table."""
    from rich.table import Table

    first = next(iter(kinds.values()))
    suffix = f" {unit}" if unit else ""
    title = f"{target}, {part} part, n = {first['count']}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for kind in kinds:
        table.add_column(kind, justify="right")
    rows = {
        "errors within the 68 % interval": ("coverage_68", "{:.1%}"),
        "errors within the 95 % interval": ("coverage_95", "{:.1%}"),
        "negative log-likelihood": ("nll", "{:.3f}"),
        "miscalibration area": ("miscalibration_area", "{:.3f}"),
        f"root mean square error{suffix and ','}{suffix}": ("rmse", "{:.4g}"),
        f"mean uncertainty{suffix and ','}{suffix}": ("mean_uncertainty", "{:.4g}"),
    }
    for text, (name, form) in rows.items():
        table.add_row(text, *(form.format(metrics[name]) for metrics in kinds.values()))
    return table


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate", help=help_text(HELP))(calibrate)
