import pytest

from tests.helpers import programs


@pytest.fixture(scope="session")
def strategy_runs(request, tmp_path_factory):
    """A folder of what distributed_run.py saw on one device, and under strategies on two."""
    path = tmp_path_factory.mktemp("strategies")
    users = [item for item in request.session.items if "strategy_runs" in item.fixturenames]
    chosen = {item.callspec.params.get("strategy", item.callspec.params.get("name"))
              for item in users if hasattr(item, "callspec")}  # fmt: skip
    others = chosen & {"one_device", "central_storage"}
    if not all(item.get_closest_marker("slow") for item in users):
        others.add("mirrored")
    programs.run("distributed_run", path, "one", *sorted(others))
    return path
