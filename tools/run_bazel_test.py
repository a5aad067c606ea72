"""Runs a folder of tests for Bazel, with what is installed beside the Python on PATH."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-m", "not slow", "-p", "no:cacheprovider", *sys.argv[1:]]))
