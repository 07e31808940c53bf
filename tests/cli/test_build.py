"""tgcrystal build: compiles, checks and measures; says what is missing."""

import pytest

from tests.compiled_kernels import compiled_cache, with_kernels  # noqa: F401
from torch_geometric_crystal.ops.cpp import extension, self_check


@pytest.mark.usefixtures("with_kernels")
def test_kernels_are_checked_and_timed(run):
    result = run("build")
    assert result.code == 0, result.err
    assert "already built" in result.out
    assert str(extension.library_folder()) in result.out
    assert "checked against the reference" in result.out
    assert "times as fast as pure torch" in result.out


def test_kernels_that_disagree_are_removed(run, compiled_cache, monkeypatch, tmp_path):  # noqa: F811
    import shutil

    shutil.copytree(compiled_cache, tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(self_check, "OUTPUT_TOLERANCE", 0.0)
    result = run("build")
    assert result.code == 2
    assert "disagree with the reference and were removed" in result.err
    assert not extension.is_built()


def test_missing_compiler_is_named(run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    result = run("build")
    assert result.code == 2
    assert "no C++ compiler" in result.err
    assert "compiling" not in result.err


def test_build_announces_itself(run, monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'error: out of luck' >&2\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(compiler))
    result = run("build")
    assert result.code == 2
    assert "compiling the C++ kernels" in result.out
    assert "out of luck" in result.err
