"""``tgcrystal train``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.display import TrainingBar, console, error_table, show_files, show_truncation
from torch_geometric_crystal.cli.options import DATA_HELP, help_text, parse_settings, with_recipe_flags

OUTPUT_FILES = (
    "config.yaml",
    "history.csv",
    "best.ckpt",
    "last.ckpt",
    "predictions.csv",
    "metrics.json",
    "learning_curve.png",
    "parity.png",
    "confusion.png",
    "roc.png",
)
HELP = """Train a model and evaluate it.

The output folder gets config.yaml (reusable with --config), history.csv, best.ckpt, last.ckpt, predictions.csv,
metrics.json, learning_curve.png and parity.png, of a classification confusion.png and roc.png. Ctrl-C writes last.ckpt;
--resume continues from it, on one CPU to the same bits.

--task classification learns classes, texts or whole numbers; of K classes the model gives K probabilities. --level atom
learns a value for each atom, from columns of extended XYZ or lists in JSON. --init-from starts from another run's
weights, with a new head where the targets are others; --freeze leaves parameters as they are.

Examples:

  tgcrystal train --data flla_2015 --target formation_energy_per_atom --output runs/flla

  tgcrystal train --data my_cifs/ --model cgcnn --epochs 300 --output runs/mine   [dim](a folder with id_prop.csv)[/dim]

  tgcrystal train --config runs/flla/config.yaml --seed 1 --output runs/flla-seed1

  tgcrystal train --resume --output runs/flla

  tgcrystal train --data my_cifs/ --task classification --output runs/phases

  tgcrystal train --data my_cifs/ --init-from runs/flla --freeze 'blocks.[012].*' --lr 1e-4 --output runs/tuned

  tgcrystal train --data flla_2015 --devices 2 --output runs/two   [dim](two processes share each batch)[/dim]
"""


@with_recipe_flags
def train(
    data: Annotated[str | None, typer.Option("--data", "-d", help=DATA_HELP)] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Target to learn; repeat for several. Default: the first."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="regression (default) or classification.")] = None,
    level: Annotated[str | None, typer.Option(help="What has targets: crystal (default) or atom.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="crystalformer (default), cgcnn or alignn.", show_default=False)
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Checkpoint or run's folder to start from; model and graph are then its own, unless given."),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="Parameters to leave as they are: a pattern of names, as 'blocks.0.*'. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The run's folder. Default: runs/<data>-<model>-seed<seed>."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings, such as a run's config.yaml; flags override it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output from its last.ckpt, with its config.yaml.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --output.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of weights, batches and random split. Default: 0.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1 or mps.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="GPUs, or processes on the CPU, that share each batch. Default: 1.")
    ] = None,
    loader_workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read batches ahead, for a store on the disk. Default: 0."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="32 (default), 64 or bf16-mixed.")] = None,
    compile_model: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Run the model through torch.compile.")
    ] = None,
    cuda_graphs: Annotated[
        bool | None,
        typer.Option("--cuda-graphs/--no-cuda-graphs", help="Replay training steps from CUDA graphs (Crystalformer)."),
    ] = None,
    max_time: Annotated[
        float | None, typer.Option(help="Stop after so many minutes of training, resumed parts included.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Validation share (default 0.1), for data without a split of its own.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Test share (default 0.1), for data without a split of its own.")
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the random split, the same for an ensemble. Default: --seed.")
    ] = None,
    tol: Annotated[
        float | None, typer.Option(help="Crystalformer: share of a softmax row that the graph's cutoff may drop.")
    ] = None,
    model_option: Annotated[
        list[str] | None, typer.Option(help="Constructor argument, as name=value, e.g. num_blocks=2. Repeatable.")
    ] = None,
    graph_option: Annotated[
        list[str] | None, typer.Option(help="Argument of model.neighborhood, as name=value. Repeatable.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Recipe to start from: crystalformer, cgcnn, alignn or common. Default: the model's own."),
    ] = None,
    recipe: dict | None = None,
) -> None:
    """Train a model and evaluate it."""
    flags = {
        "data": data, "targets": target, "task": task, "level": level, "model": model, "seed": seed, "device": device,
        "devices": devices, "loader_workers": loader_workers, "precision": precision, "compile": compile_model,
        "cuda_graphs": cuda_graphs,
        "max_time": max_time, "val_fraction": val_fraction, "test_fraction": test_fraction, "split_seed": split_seed,
        "freeze": freeze,
        "init_from": None if init_from is None else str(init_from),
    }  # fmt: skip
    settings = _read_settings(config, output, resume)
    settings |= {name: value for name, value in flags.items() if value not in (None, [])}
    if settings.get("init_from") and "model" not in settings:
        settings["model"] = _model_of(settings["init_from"])
    options = parse_settings(model_option or [], "--model-option")
    graph = parse_settings(graph_option or [], "--graph-option") | ({} if tol is None else {"tol": tol})
    settings["model_options"] = dict(settings.get("model_options") or {}) | options
    settings["neighborhood"] = dict(settings.get("neighborhood") or {}) | graph
    settings["recipe"] = _merge_recipe(settings.get("recipe"), preset, recipe or {})
    _run(settings, output, resume, overwrite)


def _read_settings(config: Path | None, output: Path | None, resume: bool) -> dict[str, Any]:
    from torch_geometric_crystal.benchmark.config import read_config

    if resume and config is None:
        if output is None:
            raise ValueError("--resume: give the run's folder with --output")
        config = output / "config.yaml"
        if not config.is_file():
            raise ValueError(f"--output: {output} holds no run to continue; leave out --resume to start one")
    return {} if config is None else read_config(config)


def _model_of(checkpoint: str) -> str:
    from torch_geometric_crystal.benchmark.checkpoint import load_model

    card: Any = load_model(checkpoint).card
    return str(card.model)


def _merge_recipe(base: Any, preset: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """The recipe's settings: those of the file unless a preset is asked for, with the flags on top."""
    if preset is not None:
        return {"preset": preset} | flags
    return ({"preset": base} if isinstance(base, str) else dict(base or {})) | flags


def _run(settings: dict[str, Any], output: Path | None, resume: bool, overwrite: bool) -> None:
    from torch_geometric_crystal.benchmark.config import RunConfig
    from torch_geometric_crystal.benchmark.run import run_training

    config = RunConfig.from_dict(settings)
    if not config.data:
        raise ValueError("--data: name a bundled data set or a path, e.g. --data flla_2015")
    folder = output or Path("runs") / f"{Path(config.data).stem}-{config.model}-seed{config.seed}"
    if (folder / "last.ckpt").exists() and not (resume or overwrite):
        raise ValueError(
            f"--output: {folder} holds a run already; add --resume or --overwrite, or choose another folder"
        )
    bar: Any = TrainingBar(config.model)
    result = run_training(config, folder, [bar], resume, progress=True)
    if result.fit.reason == "interrupted":
        console().print(f"stopped in epoch {result.fit.progress.epoch + 1}; continue with:", style="yellow")
        console().print(f"  tgcrystal train --resume --output {folder}", markup=False, soft_wrap=True)
        raise typer.Exit(130)
    show_run(result)


def show_run(result: Any) -> None:
    """Show a finished run's errors and files."""
    training, metrics = result.metrics["training"], result.metrics
    errors = {f"{name} weights": values["targets"] for name, values in metrics["test"].items()}
    if errors:
        title = "Test errors" if metrics["task"] == "regression" else "Test metrics"
        errors[metrics["baseline"]] = metrics["mean_predictor"]
        console().print(error_table(title, errors, metrics["level"]))
    minutes = training["seconds"] / 60.0
    console().print(
        f"epochs: {training['epochs']}, in {minutes:.1f} min ({training['ended']}), "
        f"best epoch: {training['best_epoch']}, reported: {metrics['reported_weights']} weights"
    )
    reported = metrics["test"].get(metrics["reported_weights"], {})
    if "truncation" in reported:
        show_truncation(reported["truncation"], metrics["crystals"]["test"])
    show_files(result.output, [name for name in OUTPUT_FILES if (result.output / name).exists()])


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train", help=help_text(HELP))(train)
