"""embed, convert, info, and what the commands share."""

import shutil

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.core import Lattice, Structure

from torch_geometric_crystal import __version__
from torch_geometric_crystal.benchmark.checkpoint import save_checkpoint
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.cli.info import package_version
from torch_geometric_crystal.cli.options import help_text, parse_settings


def test_embedding_is_written(run, small_run, cif_folder, tmp_path):
    result = run("embed", "-c", small_run, "-d", cif_folder, "-o", tmp_path / "e.npz", "--device", "cpu")
    assert result.code == 0, result.err
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == [f"x{index:02d}" for index in range(12)]
        assert arrays["embedding"].shape == (12, 128)
        assert arrays["prediction"].shape == (12, 1)


def test_embedding_is_written_as_a_table(run, small_run, cif_folder, tmp_path):
    pytest.importorskip("pyarrow")
    import pandas

    result = run("embed", "-c", small_run, "-d", cif_folder, "-o", tmp_path / "e.parquet", "--device", "cpu")
    assert result.code == 0, result.err
    table = pandas.read_parquet(tmp_path / "e.parquet")
    assert table.shape == (12, 1 + 1 + 128)
    assert table["id"].tolist() == [f"x{index:02d}" for index in range(12)]


@pytest.mark.filterwarnings("ignore::torch_geometric_crystal.datasets.StructureWarning")
def test_embedding_needs_no_target_and_leaves_out_what_the_model_lacks(run, small_run, cif_folder, tmp_path):
    shutil.copytree(cif_folder, tmp_path / "cifs")
    lines = [f"x{index:02d},meta" for index in range(12)]
    (tmp_path / "cifs" / "id_prop.csv").write_text("\n".join([*lines, "heavy,stable"]))
    heavy = Structure(Lattice.cubic(4.0), ["Es"], [[0, 0, 0]])
    heavy.to_file(str(tmp_path / "cifs" / "heavy.vasp"), fmt="poscar")
    options = ["channels=8", "num_blocks=1", "num_heads=2", "num_basis=4"]
    flags = [*(f"--model-option={text}" for text in options), "--epochs", 1, "--device", "cpu"]
    assert run("train", "-d", cif_folder, "-o", tmp_path / "run", *flags).code == 0
    result = run("embed", "-c", tmp_path / "run", "-d", tmp_path / "cifs", "-o", tmp_path / "e.npz", "--device", "cpu")
    assert result.code == 0, result.err
    assert "left out heavy: the model knows the elements up to Cf, and it has Es" in result.err
    with np.load(tmp_path / "e.npz") as arrays:
        assert len(arrays["ids"]) == 12
    (tmp_path / "cifs" / "id_prop.csv").write_text("\n".join([*lines, "heavy,1"]).replace("meta", "2"))
    for command in (["train", *flags, "-o", tmp_path / "o"], ["evaluate", "-c", tmp_path / "run", "--split", "all"]):
        result = run(*command, "-d", tmp_path / "cifs")
        assert result.code == 2
        assert "structure 'heavy': the model knows the elements up to Cf, and it has Es" in result.err


def test_atoms_have_no_pooled_features(run, tmp_path):
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.info["structure_id"] = "salt"
    write(tmp_path / "c.extxyz", [crystal] * 4)
    model = build_run_model(RunConfig(model="cgcnn", level="atom", model_options={"channels": 8}), ["q"], ["e"])
    save_checkpoint(tmp_path / "atoms.ckpt", model.card, model.state_dict())
    result = run("embed", "-c", tmp_path / "atoms.ckpt", "-d", tmp_path / "c.extxyz", "-o", tmp_path / "e.npz")
    assert result.code == 2
    assert "--checkpoint: expected a model of crystals, with pooled features, received 'atom'" in result.err


def test_convert_names_the_targets_that_it_was_not_asked_for(run, cif_folder, tmp_path):
    cif = (cif_folder / "x00.cif").read_text().replace('"', '""')
    (tmp_path / "c.csv").write_text(f'id,cif,gap,energy\na,"{cif}",1,2\n')
    result = run("convert", tmp_path / "c.csv", tmp_path / "c.npz", "--workers", "0")
    assert result.code == 0, result.err
    assert "no target was kept; there are gap, energy: choose with --target" in result.err
    result = run("convert", tmp_path / "c.csv", tmp_path / "d.npz", "--workers", "0", "-t", "gap")
    assert "targets: gap" in result.out
    assert "no target" not in result.err


def test_embedding_file_must_be_npz_or_parquet(run, small_run, cif_folder, tmp_path):
    result = run("embed", "-c", small_run, "-d", cif_folder, "-o", tmp_path / "e.csv")
    assert result.code == 2
    assert "expected a name that ends in .npz or .parquet" in result.err


def test_converted_store_trains_like_its_source(run, cif_folder, small_flags, tmp_path):
    result = run("convert", cif_folder, tmp_path / "store.npz", "--workers", "0")
    assert result.code == 0, result.err
    assert "12 structures" in result.out
    result = run("train", "-d", tmp_path / "store.npz", "-m", "cgcnn", "-o", tmp_path / "run", *small_flags)
    assert result.code == 0, result.err


def test_convert_can_leave_out_what_is_broken(run, tmp_path, cif_folder):
    folder = tmp_path / "cifs"
    shutil.copytree(cif_folder, folder)
    (folder / "x03.cif").write_text("nonsense")
    assert run("convert", folder, tmp_path / "s.npz", "--workers", "0").code == 2
    result = run("convert", folder, tmp_path / "s.npz", "--skip-errors", "--workers", "0")
    assert result.code == 0
    assert "11 structures" in result.out
    assert "1 left out; the first, x03" in result.err


def test_info_names_versions_devices_and_backends(run):
    result = run("info")
    assert result.code == 0, result.err
    for text in (__version__, "torch_geometric", "GPU", "blocked", "crystalformer", "flla_2015"):
        assert text in result.out


def test_version_of_what_is_not_installed():
    assert package_version("surely-not-installed") is None


def test_settings_are_parsed_as_yaml():
    settings = parse_settings(["a=2", "b=real", "c=true", "d=[1, 2]", "e=1.5"], "--model-option")
    assert settings == {"a": 2, "b": "real", "c": True, "d": [1, 2], "e": 1.5}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2E5", 2e5), ("-1e+2", -100.0), ("e-3", "e-3"), ("1e", "1e")]
)
def test_numbers_with_an_exponent_need_no_point(text, value):
    (parsed,) = parse_settings([f"tol={text}"], "--graph-option").values()
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["a", "=3", "a=[1"])
def test_malformed_settings_are_named(text):
    with pytest.raises(ValueError, match="--model-option"):
        parse_settings([text], "--model-option")


def test_help_paragraphs_are_joined_and_examples_kept():
    assert help_text("One\nline.\n\n  tgcrystal x\n\nTwo.\n") == "One line.\n\n  tgcrystal x\n\nTwo."


def test_training_from_a_graph_store_gives_the_same_history_as_from_its_source(run, cif_folder, small_flags, tmp_path):
    result = run("convert", cif_folder, tmp_path / "graphs", "--graphs", "cgcnn", "--workers", "0")
    assert (result.code, result.err) == (0, "")
    runs = {"memory": (cif_folder,), "disk": (tmp_path / "graphs",)}
    runs["workers"] = (tmp_path / "graphs", "--loader-workers", "1")
    for name, data in runs.items():
        result = run("train", "--data", *data, "--model", "cgcnn", "--output", tmp_path / name, *small_flags)
        assert result.code == 0, result.err
    columns = [
        [line.split(",")[:4] for line in (tmp_path / name / "history.csv").read_text().splitlines()] for name in runs
    ]
    assert columns[0] == columns[1] == columns[2]
    predictions = [(tmp_path / name / "predictions.csv").read_text() for name in runs]
    assert predictions[0] == predictions[1] == predictions[2]
    result = run("evaluate", "-c", tmp_path / "disk", "--data", tmp_path / "graphs", "--split", "all", "-o", tmp_path)
    assert result.code == 0
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 13


def test_a_graph_store_of_another_model_is_refused(run, cif_folder, tmp_path):
    run("convert", cif_folder, tmp_path / "graphs", "--graphs", "cgcnn", "--workers", "0")
    result = run("train", "--data", tmp_path / "graphs", "--model", "crystalformer", "--output", tmp_path / "r")
    assert result.code == 2
    assert "its graphs were made by PeriodicKNNGraph" in result.err
    assert "--graphs MODEL" in result.err


def test_options_of_graphs_need_graphs(run, cif_folder, tmp_path):
    result = run("convert", cif_folder, tmp_path / "s.npz", "--graph-option", "tol=1e-2")
    assert result.code == 2
    assert "name the model with --graphs" in result.err
