"""CGCNN in PyTorch Geometric, with the published sizes, on Matbench v0.1.

Made by: tgcrystal benchmark matbench --task matbench_phonons --model cgcnn --preset common --batch-size 32 --epochs 200 --output runs/cgcnn

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

SETTINGS = {'matbench_phonons': [[{'level': 'crystal',
                        'model': 'cgcnn',
                        'model_options': {},
                        'neighborhood': {},
                        'recipe': {'epochs': 200,
                                   'batch_size': 32,
                                   'batch_by': 'crystals',
                                   'loss': 'l1',
                                   'standardize': True,
                                   'optimizer': 'adamw',
                                   'lr': 0.0005,
                                   'betas': [0.9, 0.98],
                                   'momentum': 0.9,
                                   'weight_decay': 1e-05,
                                   'decay_vectors': True,
                                   'schedule': 'inverse-sqrt',
                                   'schedule_steps': 4000,
                                   'schedule_epoch': 100,
                                   'schedule_factor': 0.1,
                                   'schedule_rise': 0.3,
                                   'clip_norm': 1.0,
                                   'averaging_epochs': 50,
                                   'patience': 0},
                        'seed': 0,
                        'val_fraction': 0.1,
                        'precision': '32',
                        'compile': False,
                        'cuda_graphs': False,
                        'max_time': None,
                        'init_from': '',
                        'freeze': [],
                        'devices': 1,
                        'loader_workers': 0}]]}


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
                    folder = output / name / f"model_{number}" / f"training_{training}" / f"fold_{fold}"
                    config = RunConfig.from_dict(settings | ({"init_from": start} if start else {}))
                    record = read_record(folder) or run_fold(task, fold, config, folder, resume=True).record
                    start = str(folder)
                records.append(record)
            record = records[0] if len(records) == 1 else combine_records(task, records, "cgcnn")
            official.record(fold, list(record.predictions.values()), params=record.parameters)
    write_results(benchmark, output / "results.json.gz")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None, Path(__file__).parent / "again")
