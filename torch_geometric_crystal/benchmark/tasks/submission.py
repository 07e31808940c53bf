"""What a submission to Matbench's leaderboard consists of: results.json.gz, info.json and a source file."""

import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch_geometric_crystal import __version__
from torch_geometric_crystal.benchmark.recording import write_json, write_text
from torch_geometric_crystal.benchmark.tasks.matbench_package import quiet, read_benchmark, recorded_benchmark
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.atomic_write import atomic_write, remove_leftovers

RESULTS_FILE, INFO_FILE, SOURCE_FILE = "results.json.gz", "info.json", "run.py"
AUTHORS = "NAMES OF THOSE WHO SUBMIT"
REQUIREMENTS = ("torch", "torch_geometric", "pymatgen", "matbench", "matminer", "scikit-learn", "lightning")

ALGORITHMS = {
    "crystalformer": ("Crystalformer", "Crystalformer: attention over all periodic images of all atoms"),
    "cgcnn": ("CGCNN (PyG)", "CGCNN in PyTorch Geometric, with the published sizes"),
    "alignn": ("ALIGNN (PyG)", "ALIGNN in PyTorch Geometric, with the published sizes"),
    "composition": ("Composition GBT", "Gradient boosting on Magpie features and element fractions, no structure"),
    "mean": ("Mean", "Predicts the mean of the training part"),
}
"""Short and long name of each model, as the leaderboard asks for."""

REFERENCES = {
    "matbench": "@article{Dunn2020, doi = {10.1038/s41524-020-00406-3}, year = {2020}, volume = {6}, number = "
    "{138}, author = {Alexander Dunn and Qi Wang and Alex Ganose and Daniel Dopp and Anubhav Jain}, "
    "title = {Benchmarking materials property prediction methods: the Matbench test set and "
    "Automatminer reference algorithm}, journal = {npj Computational Materials}}",
    "crystalformer": "@inproceedings{Taniai2024, author = {Tatsunori Taniai and Ryo Igarashi and Yuta Suzuki and "
    "Naoya Chiba and Kotaro Saito and Yoshitaka Ushiku and Kanta Ono}, title = {Crystalformer: "
    "Infinitely Connected Attention for Periodic Structure Encoding}, booktitle = {International "
    "Conference on Learning Representations}, year = {2024}}",
    "cgcnn": "@article{Xie2018, doi = {10.1103/PhysRevLett.120.145301}, author = {Tian Xie and Jeffrey C. "
    "Grossman}, title = {Crystal Graph Convolutional Neural Networks for an Accurate and "
    "Interpretable Prediction of Material Properties}, journal = {Physical Review Letters}, volume = "
    "{120}, pages = {145301}, year = {2018}}",
    "alignn": "@article{Choudhary2021, doi = {10.1038/s41524-021-00650-1}, author = {Kamal Choudhary and Brian "
    "DeCost}, title = {Atomistic Line Graph Neural Network for improved materials property "
    "predictions}, journal = {npj Computational Materials}, volume = {7}, number = {185}, year = "
    "{2021}}",
    "composition": "@article{Ward2016, doi = {10.1038/npjcompumats.2016.28}, author = {Logan Ward and Ankit Agrawal "
    "and Alok Choudhary and Christopher Wolverton}, title = {A general-purpose machine learning "
    "framework for predicting properties of inorganic materials}, journal = {npj Computational "
    "Materials}, volume = {2}, number = {16028}, year = {2016}}",
}


def write_submission(records: Sequence[FoldRecord], folder: str | Path, command: str) -> list[str]:
    """Write the three files of one model's submission, from the official tasks whose folds are all recorded.

    Other tasks are left out: Matbench's own reader refuses a file in which a fold is missing.

    Args:
        records: of one model; those of other tasks than Matbench's are left out.
        folder: where the files go.
        command: the command line that made them.

    Returns:
        Names of the tasks in the file; no files are written if there are none.

    Raises:
        ValueError: if the records are of several models.
    """
    models = {record.model for record in records}
    check_argument(len(models) <= 1, "records", "those of one model", sorted(models))
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        if record.official:
            content = {"data": record.predictions, "parameters": record.parameters, "scores": record.scores}
            by_task.setdefault(record.task, {})[f"fold_{record.fold}"] = content
    folds = {record.task: record.num_folds for record in records}
    complete = {name: by_task[name] for name in sorted(by_task) if len(by_task[name]) == folds[name]}
    if complete:
        folder, model = Path(folder), models.pop()
        write_results(recorded_benchmark(complete), folder / RESULTS_FILE)
        settings = {r.task: _members(r) for r in records if r.task in complete}
        trained = sorted({stages[-1]["model"] for members in settings.values() for stages in members})
        _write_info(model, trained, list(complete), folder / INFO_FILE, command)
        write_text(folder / SOURCE_FILE, source_file(model, settings, command))
    return list(complete)


def write_results(benchmark: Any, path: str | Path) -> None:
    """Write a ``MatbenchBenchmark`` as gzipped JSON and read it again with :func:`read_results`.

    ``MatbenchBenchmark.to_file`` of the released matbench 0.6 writes plain text whatever the name says; the leaderboard
    takes a real gzip. A file with the same results stays as it is: matbench puts the time into each new one.

    Args:
        benchmark: all of its folds recorded.
        path: ends in ``.json.gz``.
    """
    path = Path(path)
    remove_leftovers(path)
    with quiet():
        content = json.loads(json.dumps(benchmark.as_dict()))
    if path.is_file() and _results(path) == {k: v for k, v in content.items() if k not in ("datestamp", "hash")}:
        return
    with atomic_write(path) as file:
        file.write(gzip.compress(json.dumps(content).encode("utf-8"), mtime=0))
    read_results(path)


def read_results(path: str | Path) -> Any:
    """Read a gzipped result file with ``MatbenchBenchmark.from_file``, which validates it.

    The released matbench 0.6 opens plain text alone (that in its repository opens gzip, too), so it is given an
    unpacked copy.

    Raises:
        ValueError: if the results were changed after they were written, or a fold is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "results.json"
        plain.write_bytes(gzip.decompress(Path(path).read_bytes()))
        return read_benchmark(str(plain))


def _results(path: Path) -> dict[str, Any] | None:
    """The content of a result file, but for what changes with time; None if it cannot be read."""
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        return {key: value for key, value in content.items() if key not in ("datestamp", "hash")}
    except (OSError, EOFError, ValueError, AttributeError):
        return None


def _members(record: FoldRecord) -> list[list[dict[str, Any]]]:
    """Of each model whose mean is the prediction, for most records one: the settings of its trainings, in order."""
    members = record.parameters.get("members", [record.parameters])
    return [[*member.get("started_from", []), member["settings"]] for member in members]


def _write_info(model: str, trained: Sequence[str], tasks: list[str], path: Path, command: str) -> None:
    """Write info.json; authors that someone has written into it stay."""
    authors = AUTHORS
    if path.is_file():
        authors = json.loads(path.read_text(encoding="utf-8")).get("authors") or AUTHORS
    short, long = ALGORITHMS.get(model, (model, model))
    references = [REFERENCES[name] for name in (*trained, "matbench") if name in REFERENCES]
    info = {
        "authors": authors,
        "algorithm": short,
        "algorithm_long": f"{long}; torch_geometric_crystal {__version__}",
        "bibtex_refs": "\n\n".join(references),
        "notes": f"Tasks: {', '.join(tasks)}. Command: {command}. {SOURCE_FILE} gives the same results.",
        "requirements": {"python": [f"torch_geometric_crystal=={__version__}", *_versions()]},
    }
    write_json(path, info)


def _versions() -> list[str]:
    found = []
    for name in REQUIREMENTS:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found


def source_file(model: str, settings: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], command: str) -> str:
    """Return a script that makes the results again, with matbench's own calls in it.

    Args:
        model: the model's name.
        settings: of each official task, by its name: of each model whose mean predicts, those of its trainings, each
            of which starts from the one before it.
        command: the command line that made them.
    """
    from pprint import pformat

    return f'''"""{ALGORITHMS.get(model, (model, model))[1]}, on Matbench v0.1.

Made by: {command}

The same from Python: python {SOURCE_FILE} [folder of Matbench's files]. What is there already is not trained again.
"""

import sys
from pathlib import Path

from matbench.bench import MatbenchBenchmark

from torch_geometric_crystal.benchmark import RunConfig, load_task, run_fold
from torch_geometric_crystal.benchmark.tasks.combination import combine_records
from torch_geometric_crystal.benchmark.tasks.matbench_package import give_targets
from torch_geometric_crystal.benchmark.tasks.record import read_record
from torch_geometric_crystal.benchmark.tasks.submission import write_results

SETTINGS = {pformat(dict(settings), width=110, sort_dicts=False)}


def main(data_dir, output):
    benchmark = MatbenchBenchmark(autoload=False, subset=list(SETTINGS))
    for name, members in SETTINGS.items():
        task, official = load_task(name, data_dir), benchmark.tasks_map[name]
        give_targets(official, task.ids, task.values)
        for fold in official.folds:
            records = []
            for number, trainings in enumerate(members):
                start = ""
                for training, settings in enumerate(trainings):
                    folder = output / name / f"model_{{number}}" / f"training_{{training}}" / f"fold_{{fold}}"
                    config = RunConfig.from_dict(settings | ({{"init_from": start}} if start else {{}}))
                    record = read_record(folder) or run_fold(task, fold, config, folder, resume=True).record
                    start = str(folder)
                records.append(record)
            record = records[0] if len(records) == 1 else combine_records(task, records, "{model}")
            official.record(fold, list(record.predictions.values()), params=record.parameters)
    write_results(benchmark, output / "{RESULTS_FILE}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None, Path(__file__).parent / "again")
'''
