"""The modules of benchmarks/cost and benchmarks/studies, which are not packages, for tests."""

import contextlib
import importlib
import pathlib
import sys

from tests.helpers import pages

COST = pages.ROOT / "benchmarks" / "cost"
STUDIES = pages.ROOT / "benchmarks" / "studies"


@contextlib.contextmanager
def imported(folder, *names):
    """Yields modules of a folder by name; until the block ends, all of its can be imported."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        added = {pathlib.Path(path) for path in set(sys.path) - set(before)}
        sys.path[:] = before
        for other, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and pathlib.Path(file).parent in added:
                del sys.modules[other]
