"""``tgcrystal benchmark``."""

import functools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from torch_geometric_crystal.cli.benchmark_table import bar_reporter, line_reporter, show_comparison
from torch_geometric_crystal.cli.display import console, show_files
from torch_geometric_crystal.cli.options import help_text, parse_settings, with_recipe_flags

MATBENCH_HELP = """Run models on the folds of Matbench tasks and compare with the published leaderboard.

Data, folds and scores are those of the matbench package; a tenth of each training part, drawn by --seed, validates,
unless --val-fraction says otherwise.
The same command again continues where it was left, after kill -9, too: what is done is not done twice. When all five
folds of a task are there, the files of a leaderboard submission are written: results.json.gz, info.json and run.py.

Official tasks are matbench_dielectric, matbench_jdft2d, matbench_log_gvrh, matbench_log_kvrh, matbench_mp_e_form,
matbench_mp_gap, matbench_mp_is_metal, matbench_perovskites and matbench_phonons, which is bundled; name the folder with
the others' files by --data-dir. The same five-fold protocol runs on the bundled sets and on compact stores under their
own names: flla_2015, elastic_2015, carbon_24, mp_20_val, or mp_gap for matbench_mp_gap.npz in --data-dir; after a colon
another target than the first.

Examples:

  tgcrystal benchmark matbench --task matbench_phonons --model crystalformer --fold 0

  tgcrystal benchmark matbench --model crystalformer --model cgcnn --model composition --model mean --jobs 2

  tgcrystal benchmark matbench --task matbench_jdft2d --data-dir ~/matbench

  tgcrystal benchmark matbench --task 'elastic_2015:log10(G_VRH)' --task flla_2015 --model cgcnn --epochs 50

  tgcrystal benchmark matbench --init-from runs/matbench --val-fraction 0 --lr 1e-4 --epochs 50 --output runs/longer
"""
JARVIS_HELP = """Run models on the published split of JARVIS-DFT 3D and compare with the published errors.

The records of the file that have the target are shuffled by Python's random with seed 123 and cut from both ends, as
the JARVIS tools do. With the release of 18 August 2021 (jdft_3d-8-18-2021.json) the parts have the published sizes;
what is measured on another release is not put beside the published errors. Crystalformer takes its paper's epochs and
batch size unless --preset or flags say otherwise. The same command again continues where it was left.

Targets: formation_energy, total_energy, opt_bandgap, mbj_bandgap, ehull.

Example:

  tgcrystal benchmark jarvis --target formation_energy --data-file jdft_3d-8-18-2021.json.zip --output runs/jarvis
"""
MEGNET_HELP = """Run models on the published split of MEGNet's Materials Project set and compare with the errors there.

The split of e_form and bandgap is that of the JARVIS tools, seed 123, on their copy of the set (megnet.json);
MEGNet's own mp.2018.6.1.json is read, too, but may be in another order. That of bulk_modulus and shear_modulus is
given by names: a JSON file with lists under train, val and test. The same command again continues where it was left.

Targets: e_form, bandgap, bulk_modulus, shear_modulus.

Example:

  tgcrystal benchmark megnet --target bandgap --data-file megnet.json.zip --model crystalformer --model composition
"""
COMBINE_HELP = """Record the mean of the predictions of several Matbench runs as an entry of its own.

Each model in each folder is a member, for the tasks and folds that it has, so that an ensemble of seeds, or of models,
stands in the same tables and makes a submission like a single one. Nothing is trained.

Example:

  tgcrystal benchmark matbench --model crystalformer --seed 0 --output runs/seed_0

  tgcrystal benchmark matbench --model crystalformer --seed 1 --output runs/seed_1

  tgcrystal benchmark combine runs/seed_0 runs/seed_1 --name crystalformer-ensemble --output runs/seed_0
"""
MODELS_HELP = "crystalformer, cgcnn, alignn, or a baseline without structure: composition, mean. Repeatable."

DataFile = Annotated[Path, typer.Option(help="The original JSON file, plain, gzipped or zipped.")]
Models = Annotated[list[str], typer.Option("--model", "-m", help=MODELS_HELP)]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for everything; a run in it is continued.")]
Jobs = Annotated[
    int, typer.Option(min=1, help="Folds at a time, each in a process, with its share of threads and GPUs.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, batches and validation part.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[str, typer.Option(help="32, 64 or bf16-mixed.")]
MaxTime = Annotated[float | None, typer.Option(help="Stop each fold after so many minutes of training.")]
Tol = Annotated[
    float | None, typer.Option(help="Crystalformer: share of a softmax row that the graph's cutoff may drop.")
]
GraphOption = Annotated[
    list[str] | None,
    typer.Option(help="Argument of model.neighborhood, as name=value, e.g. merge_tolerance=1e-4. Repeatable."),
]
ModelOption = Annotated[
    list[str] | None, typer.Option(help="Constructor argument of the models, as name=value. Repeatable.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Recipe to start from: a model's name, crystalformer-jarvis, crystalformer-jarvis-mbj or common."
    ),
]

benchmarks = typer.Typer(
    name="benchmark",
    help="Run published benchmarks.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@with_recipe_flags
def matbench(
    task: Annotated[
        list[str], typer.Option("--task", "-t", help="Official task, bundled set or compact store. Repeatable.")
    ] = ["matbench_phonons"],  # noqa: B006 (typer reads the default and never changes it)
    model: Models = ["crystalformer"],  # noqa: B006
    fold: Annotated[list[int] | None, typer.Option(min=0, help="Fold, from 0. Repeatable. Default: all.")] = None,
    output: Output = Path("runs/matbench"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with official .json.gz files or compact .npz stores.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let matminer download official files that are not there.")
    ] = False,
    jobs: Jobs = 1,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "32",
    val_fraction: Annotated[
        float, typer.Option(help="Share of each training part that validates; 0 trains on all of it, with no choice.")
    ] = 0.1,
    max_time: MaxTime = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: the output of an earlier benchmark, fold by fold, or one checkpoint that has "
            "seen no test crystal."
        ),
    ] = None,
    tol: Tol = None,
    graph_option: GraphOption = None,
    model_option: ModelOption = None,
    preset: Preset = None,
    recipe: dict | None = None,
) -> None:
    """Run models on the folds of Matbench tasks and compare with the published leaderboard."""
    from torch_geometric_crystal.benchmark.tasks import load_task

    configs = make_configs(
        model, tol, graph_option, model_option, preset, recipe,
        {"seed": seed, "device": device, "precision": precision, "max_time": max_time, "val_fraction": val_fraction,
         "test_fraction": 0.0, "init_from": init_from or ""},
    )  # fmt: skip
    loaders = [functools.partial(load_task, name, data_dir, download) for name in dict.fromkeys(task)]
    run_and_show(loaders, configs, output, fold or [], jobs)


@with_recipe_flags
def jarvis(
    target: Annotated[list[str], typer.Option("--target", "-t", help="Property to learn. Repeatable.")],
    data_file: DataFile,
    model: Models = ["crystalformer"],  # noqa: B006
    output: Output = Path("runs/jarvis"),
    jobs: Jobs = 1,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "32",
    max_time: MaxTime = None,
    tol: Tol = None,
    graph_option: GraphOption = None,
    model_option: ModelOption = None,
    preset: Preset = None,
    recipe: dict | None = None,
) -> None:
    """Run models on the published split of JARVIS-DFT 3D and compare with the published errors."""
    from torch_geometric_crystal.benchmark.tasks.published_split import JARVIS_TARGETS, load_jarvis_task

    shared = {"seed": seed, "device": device, "precision": precision, "max_time": max_time}
    _run_targets(
        target, JARVIS_TARGETS, lambda name: functools.partial(load_jarvis_task, name, data_file), output, jobs,
        lambda own: make_configs(model, tol, graph_option, model_option, preset, recipe, shared, own),
    )  # fmt: skip


@with_recipe_flags
def megnet(
    target: Annotated[list[str], typer.Option("--target", "-t", help="Property to learn. Repeatable.")],
    data_file: DataFile,
    split_file: Annotated[
        Path | None, typer.Option(help="JSON with lists of names under train, val and test; needed for the moduli.")
    ] = None,
    model: Models = ["crystalformer"],  # noqa: B006
    output: Output = Path("runs/megnet"),
    jobs: Jobs = 1,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "32",
    max_time: MaxTime = None,
    tol: Tol = None,
    graph_option: GraphOption = None,
    model_option: ModelOption = None,
    preset: Preset = None,
    recipe: dict | None = None,
) -> None:
    """Run models on the published split of MEGNet's Materials Project set and compare with the published errors."""
    from torch_geometric_crystal.benchmark.tasks.published_split import MEGNET_TARGETS, load_megnet_task

    shared = {"seed": seed, "device": device, "precision": precision, "max_time": max_time}
    _run_targets(
        target, MEGNET_TARGETS, lambda name: functools.partial(load_megnet_task, name, data_file, split_file), output,
        jobs, lambda own: make_configs(model, tol, graph_option, model_option, preset, recipe, shared, own),
    )  # fmt: skip


def combine(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of benchmark runs, with other seeds each.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the entry, a run's own among them.")],
    name: Annotated[str, typer.Option(help="Name of the entry.")] = "ensemble",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the files of tasks that are not bundled, as for matbench.")
    ] = None,
) -> None:
    """Record the mean of the predictions of several Matbench runs as an entry of its own."""
    from torch_geometric_crystal.benchmark.tasks import load_task
    from torch_geometric_crystal.benchmark.tasks.combination import combine_runs

    records = combine_runs(runs, output, name, lambda task: load_task(task, data_dir))
    write_and_show(output, {record.task for record in records}, [name])


def _run_targets(
    names: Sequence[str],
    targets: Mapping[str, Any],
    loader: Callable[[str], Callable[[], Any]],
    output: Path,
    jobs: int,
    configs: Callable[[str], Sequence[Any]],
) -> None:
    """Run targets one after the other: each has its preset for Crystalformer."""
    from torch_geometric_crystal.checks import check_choice

    for name in names:
        check_choice("target", name, tuple(targets))
    for name in dict.fromkeys(names):
        run_and_show([loader(name)], configs(targets[name].preset), output, [], jobs)


def make_configs(
    models: Sequence[str],
    tol: float | None,
    graph_option: list[str] | None,
    model_option: list[str] | None,
    preset: str | None,
    recipe: dict[str, Any] | None,
    shared: dict[str, Any],
    own: str = "crystalformer",
) -> list[Any]:
    """One configuration a model; `own` is Crystalformer's preset where none is given. Baselines have no recipe."""
    from torch_geometric_crystal.benchmark.baselines import BASELINES
    from torch_geometric_crystal.benchmark.config import RunConfig

    options = parse_settings(model_option or [], "--model-option")
    graph = parse_settings(graph_option or [], "--graph-option")
    configs = []
    for model in dict.fromkeys(models):
        settings = {**shared, "model": model}
        if model not in BASELINES:
            settings["model_options"] = options
            truncation = {"tol": tol} if tol is not None and model == "crystalformer" else {}
            settings["neighborhood"] = graph | truncation
            chosen = preset or (own if model == "crystalformer" else None)
            settings["recipe"] = ({} if chosen is None else {"preset": chosen}) | (recipe or {})
        configs.append(RunConfig.from_dict(settings))
    return configs


def run_and_show(
    loaders: Sequence[Callable[[], Any]], configs: Sequence[Any], output: Path, folds: Sequence[int], jobs: int
) -> None:
    """Run what is not done yet, write the summary and what can be submitted, and show the tables."""
    from torch_geometric_crystal.benchmark.tasks import run_benchmark

    reporter = bar_reporter if jobs == 1 else line_reporter
    records, complete = run_benchmark(loaders, configs, output, folds, jobs, reporter)
    write_and_show(output, {record.task for record in records}, [config.model for config in configs])
    if not complete:
        console().print("stopped; the same command continues", style="yellow")
        raise typer.Exit(130)


def write_and_show(output: Path, shown: set[str], models: Sequence[str]) -> None:
    """Write the summary of all that is in a folder and what can be submitted of some models; show the tables."""
    from torch_geometric_crystal.benchmark.tasks import read_records
    from torch_geometric_crystal.benchmark.tasks.submission import (
        INFO_FILE,
        RESULTS_FILE,
        SOURCE_FILE,
        write_submission,
    )
    from torch_geometric_crystal.benchmark.tasks.summary import write_summary

    summaries = write_summary(output)
    for summary in summaries:
        if summary.name in shown:
            show_comparison(summary)
    if summaries:
        pictures = [path.name for path in sorted(output.glob("comparison_*.png"))]
        show_files(output, ["summary.csv", "summary.md", *pictures])
    command = f"tgcrystal {shlex.join(sys.argv[1:])}"
    everything = read_records(output)
    for model in models:
        of_model = [record for record in everything if record.model == model]
        if tasks := write_submission(of_model, output / model, command):
            show_files(output / model, [f"{RESULTS_FILE} ({', '.join(tasks)})", INFO_FILE, SOURCE_FILE])


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    benchmarks.command("matbench", help=help_text(MATBENCH_HELP))(matbench)
    benchmarks.command("jarvis", help=help_text(JARVIS_HELP))(jarvis)
    benchmarks.command("megnet", help=help_text(MEGNET_HELP))(megnet)
    benchmarks.command("combine", help=help_text(COMBINE_HELP))(combine)
    app.add_typer(benchmarks)
