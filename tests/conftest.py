"""Configuration of all tests. No framework is imported before a test needs one."""

import gc
import os

import pytest

IS_TF_KERAS = os.environ.get("KERAS_DSD_PATH", "tf_keras") == "tf_keras"
# What tools/run_tests.py calls the path.
NAME = "tf_keras" if IS_TF_KERAS else os.environ.get("KERAS_BACKEND", "tensorflow")
USE_KERAS = {"all_backends", "keras3", "tf_keras"}

# Tests of tf_keras and of Keras 3 can't share a process.
collect_ignore = ["keras3"] if IS_TF_KERAS else ["tf_keras"]
# These import PyTorch as they are collected.
collect_ignore_glob = [] if NAME == "torch" else ["keras3/test_torch_*"]


def pytest_configure():
    # The Keras that examples/recipes choose, here and in processes that tests start.
    os.environ["TF_USE_LEGACY_KERAS"] = "1" if IS_TF_KERAS else "0"


@pytest.hookimpl(tryfirst=True)  # before pytest itself selects by keywords
def pytest_collection_modifyitems(config, items):
    here = [item for item in items if _is_run_here(item)]
    for item in here:
        # Twice is for CI: whoever waits for `make test` sees these on Keras 3.
        is_on_both = item.get_closest_marker("once_per_keras") or item.path.parent.name == "recipes"
        if (IS_TF_KERAS and is_on_both) or _is_shown_elsewhere(item):
            item.add_marker("slow")
    config.hook.pytest_deselected(items=[item for item in items if item not in here])
    items[:] = here


def _is_shown_elsewhere(item):
    """True if `make test` shows the same on JAX, and traces it on tf_keras.

    Keras 3 on TensorFlow trains by the adapter of the one, and on the graphs of the other.
    """
    only = item.get_closest_marker("only_on")
    is_of_it = item.get_closest_marker("smoke") or (only is not None and NAME in only.args)
    return NAME == "tensorflow" and item.path.parent.name in USE_KERAS and not is_of_it


def _is_run_here(item):
    """True if the path is one of those that run the test: see `markers` in pyproject.toml."""
    once, only = item.get_closest_marker("once_per_keras"), item.get_closest_marker("only_on")
    return (
        (once is None or IS_TF_KERAS or NAME == "jax")
        and (only is None or NAME in only.args)
    )  # fmt: skip


# TensorFlow keeps much of what it makes. To look through all of it, time and again, took a third of
# the time: so what a module leaves is set aside.
def pytest_sessionstart():
    gc.set_threshold(200_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def _set_aside():
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    gc.freeze()


def pytest_unconfigure():
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded(request):
    if request.path.parent.name in USE_KERAS:
        from tests.helpers import paths

        paths.fresh()
        paths.seed(1)


@pytest.fixture(scope="session")
def digits():
    """320 real images of 8 x 8 digits, and their labels: ten batches of 32."""
    from tests.helpers import digits

    return digits.images()


@pytest.fixture
def compiled():
    """Compiles a model for digits and returns it."""
    from tests.helpers import paths

    return lambda *args, **options: paths.compiled(*args, **{"metrics": None, **options})


@pytest.fixture
def mlp():
    """Makes a small model of 8 x 8 digits."""
    from tests.helpers import paths

    return paths.classifier
