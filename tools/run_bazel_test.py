"""Runs Bazel's test file through pytest; run as it is, the file would only be imported."""

import os
import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([os.environ["TEST_TARGET"].removeprefix("//:") + ".py", *sys.argv[1:]]))
