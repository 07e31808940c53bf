"""The C++ kernels, built once for all tests, in a folder that the tests outside do not look into."""

import os
from pathlib import Path

import pytest

from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.cpp.toolchain import find_compiler


@pytest.fixture(scope="session")
def compiled_cache(tmp_path_factory):
    """A cache folder with the kernels built and loaded; skips where there is no compiler."""
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = Path(base) / "compiled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        extension.build()
        extension.load()
    return folder


@pytest.fixture
def with_kernels(compiled_cache, monkeypatch):
    """For the duration of a test the kernels are built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiled_cache))
