import subprocess
import sys
import time

import pytest

COMMANDS = ["train", "evaluate", "predict", "embed", "convert", "export", "info", "demo"]


@pytest.mark.parametrize("command", [*COMMANDS, "benchmark matbench", "benchmark jarvis", "benchmark megnet"])
def test_every_command_has_help(run, command):
    result = run(*command.split(), "--help")
    assert result.code == 0
    assert "Usage: tgcrystal" in result.out
    if command != "info":
        assert f"tgcrystal {command}" in result.out.replace("Usage: tgcrystal", "")


def test_help_lists_the_commands(run):
    result = run("--help")
    assert all(command in result.out for command in [*COMMANDS, "benchmark"])


def test_help_is_fast_and_loads_no_torch():
    code = (
        "import sys; sys.argv = ['tgcrystal', 'train', '--help']\n"
        "from torch_geometric_crystal.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'lightning', 'pymatgen'} & set(sys.modules)"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    assert best < 1.5


def test_no_command_shows_the_help(run):
    assert "Usage: tgcrystal" in "".join(run().__dict__[stream] for stream in ("out", "err"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--data", "nothing_there"),
        ("train",),
        ("train", "--data", "flla_2015", "--target", "colour"),
        ("train", "--data", "flla_2015", "--model", "unknown"),
        ("train", "--data", "flla_2015", "--epochs", "0"),
        ("train", "--data", "flla_2015", "--model-option", "channels"),
        ("train", "--config", "nothing.yaml"),
        ("train", "--resume"),
        ("evaluate", "--checkpoint", "nothing.ckpt", "--data", "flla_2015"),
        ("predict", "--checkpoint", "nothing.ckpt", "a.cif"),
        ("benchmark", "matbench", "--task", "matbench_photons"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err


@pytest.mark.parametrize("arguments", [("trian",), ("train", "--epoch"), ("predict",), ("train", "--epochs", "many")])
def test_wrong_usage_is_exit_code_2(run, arguments):
    result = run(*arguments)
    assert result.code == 2
    assert "Usage" in result.err


@pytest.mark.parametrize("place", [0, 1, 5])
def test_debug_shows_the_traceback(run, place):
    arguments = ["predict", "--checkpoint", "nothing.ckpt", "a.cif"]
    arguments.insert(place, "--debug")
    with pytest.raises(ValueError, match="no such file"):
        run(*arguments)


def test_a_fault_of_the_library_is_exit_code_1(run, monkeypatch):
    from torch_geometric_crystal.benchmark import checkpoint

    def fail(*arguments):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(checkpoint, "load_model", fail)
    result = run("predict", "--checkpoint", "x", "a.cif")
    assert (result.code, result.err) == (1, "error: RuntimeError: two lines\n")


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "torch_geometric_crystal.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "tgcrystal" in done.stdout


def test_threads_can_be_limited(run):
    import torch

    before = torch.get_num_threads()
    try:
        assert run("--threads", "1", "info").code == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
