"""Predicts the mean of the training part, on Matbench v0.1.

Made by: tgcrystal benchmark matbench --task matbench_phonons --model composition --model mean -o runs/base

The same from Python: python run.py [folder of Matbench's files]. What is there already is not trained again.
"""

import sys
from pathlib import Path

from matbench.bench import MatbenchBenchmark

from torch_geometric_crystal.benchmark import RunConfig, load_task, run_fold
from torch_geometric_crystal.benchmark.tasks.combination import combine_records
from torch_geometric_crystal.benchmark.tasks.matbench_package import give_targets
from torch_geometric_crystal.benchmark.tasks.record import read_record
from torch_geometric_crystal.benchmark.tasks.submission import write_results

SETTINGS = {'matbench_phonons': [{'model': 'mean', 'seed': 0}]}


def main(data_dir, output):
    benchmark = MatbenchBenchmark(autoload=False, subset=list(SETTINGS))
    for name, members in SETTINGS.items():
        task, official = load_task(name, data_dir), benchmark.tasks_map[name]
        give_targets(official, task.ids, task.values)
        for fold in official.folds:
            records = []
            for number, settings in enumerate(members):
                folder, config = output / name / f"model_{number}" / f"fold_{fold}", RunConfig.from_dict(settings)
                records.append(read_record(folder) or run_fold(task, fold, config, folder, resume=True).record)
            record = records[0] if len(records) == 1 else combine_records(task, records, "mean")
            official.record(fold, list(record.predictions.values()), params=record.parameters)
    write_results(benchmark, output / "results.json.gz")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None, Path(__file__).parent / "again")
