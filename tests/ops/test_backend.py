"""The choice of backend."""

import pytest

from torch_geometric_crystal.ops import available_backends, choose_backend, use_backend


def test_argument_beats_context_and_context_beats_default():
    assert choose_backend() == "blocked"
    with use_backend("reference"):
        assert choose_backend() == "reference"
        assert choose_backend("blocked") == "blocked"
        with use_backend("auto"):
            assert choose_backend() == "blocked"
        assert choose_backend() == "reference"
    assert choose_backend() == "blocked"


def test_auto_takes_the_first_of_the_available_backends():
    assert available_backends() == ("blocked", "reference")
    assert choose_backend("auto") == available_backends()[0]


def test_context_is_left_after_an_error():
    with pytest.raises(RuntimeError, match="inside"), use_backend("reference"):
        raise RuntimeError("inside")
    assert choose_backend() == "blocked"


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend: expected one of 'auto', 'blocked', 'reference', received 'cupy'"):
        choose_backend("cupy")
    with pytest.raises(ValueError, match="received 'cupy'"), use_backend("cupy"):
        pass
