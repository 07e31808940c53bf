"""tgcrystal export of a program."""

import torch


def test_program_is_exported_by_the_files_name(run, cif_folder, small_flags, tmp_path):
    options = ["--model-option", "num_blocks=1", "--model-option", "num_heads=2", "--model-option", "num_basis=8"]
    result = run("train", "-d", cif_folder, "-o", tmp_path / "run", *options, *small_flags)
    assert result.code == 0, result.err
    result = run("export", "-c", tmp_path / "run", tmp_path / "model.pt2")
    assert result.code == 0, result.err
    assert "model.pt2" in result.out
    program = torch.export.load(tmp_path / "model.pt2")
    names = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    assert names == {"z", "ptr", "edge_index", "edge_dist"}


def test_program_of_another_model_is_refused(run, small_run, tmp_path):
    result = run("export", "-c", small_run, tmp_path / "model.pt2")
    assert result.code == 2
    assert "a crystalformer" in result.err
