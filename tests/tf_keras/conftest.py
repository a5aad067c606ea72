import pytest

from tests.helpers import programs


@pytest.fixture(scope="session")
def strategy_runs(tmp_path_factory):
    """A folder of what distributed_run.py saw on one device, and under strategies on two."""
    path = tmp_path_factory.mktemp("strategies")
    programs.run("distributed_run", path, "one", "one_device", "mirrored", "central_storage")
    return path
