import csv
import dataclasses

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.published import leaderboard
from torch_geometric_crystal.benchmark.tasks.record import FoldRecord, write_record
from torch_geometric_crystal.benchmark.tasks.summary import format_score, summarize, table_rows, write_summary


def record(fold, score, model="cgcnn", task="matbench_phonons", official=True, metric="mae", epochs=3):
    return FoldRecord(
        task=task,
        statement="the official one" if official else "not a Matbench task",
        official=official,
        published_as=task if official else "",
        kind="regression",
        metric=metric,
        target="peak",
        unit="1/cm",
        model=model,
        fold=fold,
        num_folds=5,
        predictions={"a": score, "b": 2.0},
        parameters={},
        scores={metric: score, "mae": score},
        effort={"ended": "finished", "epochs": epochs, "seconds": 30.0, "weights": 10},
    )


@pytest.fixture
def output(tmp_path):
    records = [record(fold, 40.0 + fold) for fold in range(5)] + [record(0, 90.0, "mean", epochs=None)]
    for one in records:
        folder = tmp_path / one.model / one.task / f"fold_{one.fold}"
        write_record(one, folder)
        (folder / "predictions.csv").write_text("id,target,prediction\na,1.0,40.0\nb,2.0,2.0\n")
    return tmp_path


def test_mean_and_spread_are_over_the_folds_that_are_there(output):
    (summary,) = write_summary(output)
    first, second = summary.models
    assert (first.model, first.mean, first.std) == ("cgcnn", 42.0, pytest.approx(np.std([40, 41, 42, 43, 44])))
    assert first.how == "all 5 folds, 3 epochs each, 2.5 min"
    assert (second.model, second.mean, second.how) == ("mean", 90.0, "fold 0 of 5, 0.5 min")
    assert np.isnan(second.std)


def test_tables_hold_every_fold_and_the_published_entries_with_their_date(output):
    write_summary(output)
    with (output / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["folds"], row["fold_4"]) for row in rows] == [("cgcnn", "5", "44"), ("mean", "1", "")]
    text = (output / "summary.md").read_text()
    assert "Data: the official one." in text
    assert "| cgcnn, here | 42.00 | 1.41 | all 5 folds" in text
    assert "| CGCNN v2019 | 57.76 | 12.31 | published |" in text
    assert "Published: Matbench v0.1 leaderboard, November 2026" in text
    assert "* cgcnn: 0: 40.00, 1: 41.00" in text


def test_pictures_are_drawn_for_the_task_and_each_model(output):
    write_summary(output)
    for name in (
        "comparison_matbench_phonons.png",
        "cgcnn/matbench_phonons/parity.png",
        "mean/matbench_phonons/parity.png",
    ):
        assert (output / name).read_bytes()[:4] == b"\x89PNG"


def test_rows_are_sorted_best_first_among_the_published(output):
    (summary,) = write_summary(output)
    rows = table_rows(summary)
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert len(rows) == 2 + len(leaderboard("matbench_phonons"))
    short = [row[0] for row in table_rows(summary, shown=2)]
    assert short == ["MegNet (kgcnn v2.1.0)", "coNGN", "cgcnn, here", "CGCNN v2019", "mean, here"]


def test_more_is_better_for_the_area_under_the_curve():
    records = [record(0, 0.7, metric="rocauc"), record(0, 0.9, "mean", metric="rocauc")]
    (summary,) = summarize([dataclasses.replace(one, published_as="matbench_mp_is_metal") for one in records])
    assert [score.model for score in summary.models] == ["mean", "cgcnn"]
    assert [row[0] for row in table_rows(summary)][:2] == ["CGCNN v2019", "ALIGNN"]


def test_other_data_have_no_published_entries_beside_them():
    (summary,) = summarize([record(0, 40.0, task="flla_2015:energy", official=False)])
    assert summary.published == []


def test_a_folder_without_folds_gives_no_files(tmp_path):
    assert write_summary(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_spread_has_the_decimals_of_its_mean():
    assert [format_score(12.345), format_score(1.2, 12.3), format_score(0.12345), format_score(float("nan"))] == [
        "12.35",
        "1.20",
        "0.1235",
        "",
    ]
