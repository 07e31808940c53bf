"""Building, keeping and loading the C++ kernels: what is there is used, what is not trusted is not."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.ops import available_backends, choose_backend
from torch_geometric_crystal.ops.cpp import extension, toolchain


@pytest.fixture
def own_copy(compiled_cache, tmp_path, monkeypatch):  # noqa: F811
    """The library, alone in a cache folder of the test's own."""
    shutil.copytree(compiled_cache, tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    [library] = extension.library_folder().glob("*.so")
    return library


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def in_new_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"LANG": "C"})


@pytest.mark.usefixtures("empty_cache")
def test_without_a_build_another_backend_runs_and_the_remedy_is_named():
    assert not extension.is_built()
    assert "tgcrystal build" in extension.why_unavailable()
    assert "cpp" not in available_backends("cpu")
    assert choose_backend() == "blocked"
    with pytest.raises(RuntimeError, match="'cpp' cannot run here: not built"):
        choose_backend("cpp")


def test_without_a_home_folder_nothing_is_built_and_nothing_breaks(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert not extension.is_built()
    assert choose_backend() == "blocked"
    with pytest.raises(extension.ExtensionError, match="set XDG_CACHE_HOME"):
        extension.build()


def test_without_a_compiler_the_reason_says_so(empty_cache, monkeypatch):
    monkeypatch.setenv("PATH", str(empty_cache))
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in extension.why_unavailable()
    with pytest.raises(extension.ExtensionError, match="no C\\+\\+ compiler"):
        extension.build()


def test_asking_whether_it_is_built_makes_no_folder_and_starts_nothing(empty_cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    assert not extension.is_built()
    assert list(empty_cache.iterdir()) == []


@pytest.mark.usefixtures("with_kernels")
def test_what_is_built_is_chosen_for_float32_alone():
    import torch

    assert extension.is_built()
    assert extension.why_unavailable() is None
    assert choose_backend("auto", "cpu", torch.float32) == "cpp"
    assert choose_backend("auto", "cpu", torch.float64) == "blocked"


@pytest.mark.usefixtures("with_kernels")
def test_what_is_built_is_not_built_again(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    assert extension.build().is_file()


def test_folder_and_library_belong_to_the_user_alone(compiled_cache):  # noqa: F811
    folder = compiled_cache / "torch_geometric_crystal" / "cpp"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_damaged_library_is_refused_with_one_warning_and_another_backend_runs(own_copy):
    own_copy.write_bytes(own_copy.read_bytes()[:5000])
    with pytest.warns(extension.ExtensionWarning, match="damaged"):
        assert choose_backend() == "blocked"
    assert choose_backend() == "blocked"
    assert "--force" in extension.why_unavailable()


@pytest.mark.parametrize("writable", ["library", "folder"])
def test_what_others_can_write_is_refused(own_copy, writable):
    path = own_copy if writable == "library" else own_copy.parent
    path.chmod(path.stat().st_mode | 0o022)
    with pytest.warns(extension.ExtensionWarning, match="is refused"):
        assert "is refused" in extension.why_unavailable()


def test_a_link_is_refused(own_copy, tmp_path):
    elsewhere = own_copy.rename(tmp_path / "elsewhere.so")
    own_copy.symlink_to(elsewhere)
    with pytest.warns(extension.ExtensionWarning, match="is refused"):
        assert "is refused" in extension.why_unavailable()


def test_a_file_that_is_no_library_fails_to_load_with_a_reason(own_copy):
    content = b"no library"
    own_copy.write_bytes(content)
    own_copy.rename(own_copy.with_name(f"{toolchain.build_key()}-{extension._digest(own_copy)}.so"))
    code = "from torch_geometric_crystal.ops.cpp import extension; print(extension.why_unavailable())"
    result = in_new_process(code)
    assert result.returncode == 0, result.stderr
    assert "failed to load" in result.stdout
    assert "ExtensionWarning" in result.stderr


@pytest.mark.usefixtures("with_kernels")
def test_a_new_process_loads_it():
    code = "from torch_geometric_crystal.ops import choose_backend; print(choose_backend())"
    result = in_new_process(code)
    assert (result.stdout.strip(), result.stderr) == ("cpp", "")


@pytest.mark.parametrize("changed", ["instruction_set", "torch", "source"])
def test_key_depends_on_processor_torch_and_sources(changed, monkeypatch, tmp_path):
    before = toolchain.build_key.__wrapped__()
    assert toolchain.build_key.__wrapped__() == before
    if changed == "instruction_set":
        monkeypatch.setattr(toolchain, "instruction_set", lambda: "fma avx2")
    elif changed == "torch":
        monkeypatch.setattr(toolchain.torch, "__version__", "0.1")
    else:
        shutil.copytree(toolchain.SOURCE_FOLDER, tmp_path / "cpp")
        with (tmp_path / "cpp" / "rows.h").open("a") as file:
            file.write("\n")
        monkeypatch.setattr(toolchain, "SOURCE_FOLDER", tmp_path / "cpp")
    assert toolchain.build_key.__wrapped__() != before


def test_failing_compiler_is_reported_and_leaves_nothing(empty_cache, monkeypatch):
    compiler = empty_cache / "broken-c++"
    compiler.write_text(
        "#!/bin/sh\necho 'In file included' >&2\necho 'x.cpp:1: fatal error: no such header' >&2\nexit 1\n"
    )
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(extension.ExtensionError, match=r"failed: x\.cpp:1: fatal error: no such header$"):
        extension.build()
    assert list(extension.library_folder().iterdir()) == []


def test_left_overs_of_killed_builds_are_removed_in_time(empty_cache, monkeypatch):
    folder = extension.library_folder()
    for name, age in ((".build-old", 2 * extension.ABANDONED_SECONDS), (".build-running", 0.0)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    compiler = empty_cache / "c++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(extension.ExtensionError, match="no message"):
        extension.build()
    assert [path.name for path in folder.iterdir()] == [".build-running"]


def test_a_forced_build_takes_the_place_of_the_old_one(own_copy, monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != "-o" ]; do shift; done\nprintf new > "$2"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    path = extension.build(force=True)
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    assert not own_copy.exists()
