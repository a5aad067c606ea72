import pytest

from tests.helpers import programs


@pytest.fixture(scope="session")
def strategy_runs(request, tmp_path_factory):
    """A folder of what distributed_run.py saw on one device, and under strategies on two."""
    path = tmp_path_factory.mktemp("strategies")
    chosen = {item.callspec.params.get("strategy", item.callspec.params.get("name"))
              for item in request.session.items if hasattr(item, "callspec")}  # fmt: skip
    others = sorted(chosen & {"one_device", "central_storage"})
    programs.run("distributed_run", path, "one", "mirrored", *others)
    return path
