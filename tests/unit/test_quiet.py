"""Output to stderr, by C++ code too, is dropped temporarily."""

import os

import pytest

from keras_dsd.utils.quiet import quiet_stderr


def test_stderr_is_dropped_and_restored(capfd):
    with pytest.raises(ImportError), quiet_stderr():
        os.write(2, b"of C++")
        raise ImportError
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
