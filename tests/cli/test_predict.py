import csv
import json
import shutil

import pytest


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def mixed(cif_folder, tmp_path):
    """A corrupt file between good ones."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(cif_folder / "x01.cif", folder / "a.cif")
    (folder / "b.cif").write_text("data_broken\n_cell_length_a oops\n")
    shutil.copy(cif_folder / "x00.cif", folder / "c.cif")
    return folder


def test_corrupt_file_gets_an_error_in_its_row_and_the_others_their_predictions(run, small_run, mixed, tmp_path):
    result = run("predict", "-c", small_run, mixed, "-o", tmp_path / "p.csv", "--device", "cpu")
    assert result.code == 0
    assert "2 of 3 structures predicted" in result.out
    assert result.err.startswith("warning: 1 failed, see the column error; the first, ")
    rows = rows_of(tmp_path / "p.csv")
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert list(rows[0]) == ["id", "prediction", "truncation_bound", "error", "file"]
    assert [bool(row["prediction"]) for row in rows] == [True, False, True]
    assert [bool(row["error"]) for row in rows] == [False, True, False]


def test_json_says_the_same_as_the_csv(run, small_run, mixed, tmp_path):
    run("predict", "-c", small_run, mixed, "-o", tmp_path / "p.csv", "--device", "cpu")
    content = json.loads((tmp_path / "p.json").read_text())
    rows = rows_of(tmp_path / "p.csv")
    assert content["units"] == {"prediction": ""}
    assert [row["id"] for row in content["predictions"]] == [row["id"] for row in rows]
    for row, text in zip(content["predictions"], rows, strict=True):
        assert (row["prediction"] is None) == (text["prediction"] == "")
        if row["prediction"] is not None:
            assert float(text["prediction"]) == pytest.approx(row["prediction"], rel=1e-6)
    assert content["predictions"][1]["error"]


def test_files_are_predicted_in_the_order_given_and_as_in_training(run, small_run, cif_folder, tmp_path):
    expected = {row["id"]: float(row["prediction"]) for row in rows_of(small_run / "predictions.csv")}
    files = [cif_folder / f"{name}.cif" for name in sorted(expected, reverse=True)]
    run("predict", "-c", small_run, *files, "-o", tmp_path / "p.csv", "--device", "cpu", "--batch-size", "1")
    rows = rows_of(tmp_path / "p.csv")
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [float(row["prediction"]) for row in rows] == pytest.approx([expected[row["id"]] for row in rows], rel=1e-4)


def test_nothing_but_bad_files_is_a_warning_too(run, small_run, mixed, tmp_path):
    result = run("predict", "-c", small_run, mixed / "b.cif", mixed / "no.cif", "-o", tmp_path / "p.csv")
    assert result.code == 0
    assert [bool(row["error"]) for row in rows_of(tmp_path / "p.csv")] == [True, True]


def test_truncated_checkpoint_is_one_line(run, small_run, cif_folder, tmp_path):
    content = (small_run / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: len(content) // 2])
    result = run("predict", "-c", tmp_path / "cut.ckpt", cif_folder)
    assert result.code == 2
    assert "cut.ckpt': truncated or damaged. Use another one of the run" in result.err
    assert result.err.count("\n") == 1


def test_exported_weights_predict_the_same(run, small_run, cif_folder, tmp_path):
    result = run("export", "-c", small_run, tmp_path / "model.safetensors")
    assert result.code == 0, result.err
    for name, checkpoint in (("a", small_run), ("b", tmp_path / "model.safetensors")):
        run("predict", "-c", checkpoint, cif_folder, "-o", tmp_path / f"{name}.csv", "--device", "cpu")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_bound_above_the_tolerance_is_a_warning(run, small_run, cif_folder, tmp_path, monkeypatch):
    from torch_geometric_crystal.benchmark import prediction

    original = prediction.predict_files
    row = original(prediction_model(small_run), cif_folder / "x00.cif", device="cpu")[0]
    monkeypatch.setattr(
        prediction, "predict_files", lambda *a, **k: [type(row)(row.structure_id, row.path, row.values, 0.5, "")]
    )
    monkeypatch.setattr(prediction, "tolerance_of", lambda model: 1e-3)
    result = run("predict", "-c", small_run, cif_folder / "x00.cif", "-o", tmp_path / "p.csv")
    assert result.code == 0
    assert "truncation_bound is above the graphs' tolerance 0.001 for 1 files, up to 5.0e-01" in result.err


def prediction_model(folder):
    from torch_geometric_crystal.benchmark.checkpoint import load_model

    return load_model(folder)


def test_no_file_that_is_read_is_replaced(run, small_run, cif_folder, tmp_path):
    structure = tmp_path / "own.json"
    structure.write_text("{}")
    exported = tmp_path / "model.safetensors"
    run("export", "-c", small_run, exported)
    card = exported.with_suffix(".json").read_text()
    cases = [(small_run, structure, "own.csv"), (exported, cif_folder, "model.csv"), (exported, cif_folder, "model")]
    for checkpoint, file, output in cases:
        result = run("predict", "-c", checkpoint, file, "-o", tmp_path / output)
        assert result.code == 2
        assert "would replace a file that is read; give another name" in result.err
    assert structure.read_text() == "{}"
    result = run("export", "-c", small_run, tmp_path / "own.safetensors")
    assert result.code == 2
    assert "beside which no other file is called own.json" in result.err
    assert exported.with_suffix(".json").read_text() == card
    assert run("export", "-c", small_run, exported).code == 0  # its own card may be replaced


def test_the_suffix_is_added_to_the_whole_name(run, small_run, cif_folder, tmp_path):
    assert run("predict", "-c", small_run, cif_folder / "x00.cif", "-o", tmp_path / "a_v1.5").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_v1.5.csv", "a_v1.5.json"]


@pytest.mark.filterwarnings("ignore::torch_geometric_crystal.datasets.StructureWarning")
def test_atoms_that_share_a_place_do_not_stop_the_other_files(run, cif_folder, tmp_path):
    small = [f"--model-option={text}" for text in ("channels=8", "embedding_channels=8", "num_alignn_layers=1")]
    flags = ["--model", "alignn", "--epochs", 1, "--device", "cpu", *small]
    assert run("train", "-d", cif_folder, "-o", tmp_path / "run", *flags).code == 0
    (tmp_path / "POSCAR").write_text("two\n1.0\n4 0 0\n0 4 0\n0 0 4\nCu\n2\nDirect\n0 0 0\n0 0 0\n")
    files = [cif_folder / "x00.cif", tmp_path / "POSCAR", cif_folder / "x01.cif"]
    result = run("predict", "-c", tmp_path / "run", *files, "-o", tmp_path / "p.csv", "--device", "cpu")
    assert result.code == 0, result.err
    rows = rows_of(tmp_path / "p.csv")
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert "share a place" in rows[1]["error"]
