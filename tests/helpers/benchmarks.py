"""The modules of benchmarks/studies, which is not a package, for tests."""

import contextlib
import importlib
import pathlib
import sys

from tests.helpers import pages

FOLDER = pages.ROOT / "benchmarks" / "studies"


@contextlib.contextmanager
def imported(name):
    """Imports a module of the studies; afterwards none of them can be imported."""
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module(name)
    finally:
        added = {pathlib.Path(path) for path in set(sys.path) - set(before)}
        sys.path[:] = before
        for other, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and pathlib.Path(file).parent in added:
                del sys.modules[other]
