"""The examples that log a run to MLflow, on a local server, and to Weights & Biases."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.helpers.paths import PATH

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "tracking"
PHASES = {0: 0, 1: 1, 2: 1, 3: 2}  # of --dense=1 --sparse=2 --redense=1
LEFT = {0: 0, 1: 1, 2: 0, 3: 0}
RATES = {0: 0.001, 1: 0.001, 2: 0.001, 3: 0.0001}  # in use
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}

pytestmark = [pytest.mark.slow, pytest.mark.once_per_keras]
# CI runs each example with one Keras.
on_tf_keras, on_keras_3 = (
    (lambda test: test) if PATH == path else pytest.mark.exhaustive
    for path in ("tf_keras", "keras")
)


def run(example, folder, *flags):
    keras = "2" if PATH == "tf_keras" else "3"
    flags = [f"--keras={keras}", "--dense=1", "--sparse=2", "--redense=1", *flags]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *flags], cwd=folder, env={**os.environ, **QUIET},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def check_sparsity(found):
    """Checks a sparsity for each epoch: some weights are behind pixels that are always black."""
    assert {epoch: found[epoch] for epoch in (0, 1, 2)} == {0: 0, 1: 0.5, 2: 0.5}
    assert 0 < found[3] < 0.2


@contextlib.contextmanager
def mlflow_server(folder):
    """Runs a server for as long as the block lasts; yields where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}",
               "--workers=1", f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}",
               f"--artifacts-destination={folder / 'artifacts'}"]  # fmt: skip
    with (folder / "server.txt").open("wb") as output:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while not answers(f"{address}/health"):
            said = (folder / "server.txt").read_text()[-3000:]
            assert server.poll() is None and time.monotonic() < end, said
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@on_keras_3
def test_mlflow_has_the_phases_and_the_sparsity_of_each_epoch(tmp_path, monkeypatch):
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow: make mlflow")
    with mlflow_server(tmp_path) as address:
        run("mlflow_run.py", tmp_path, f"--tracking_uri={address}")
        client = mlflow.MlflowClient(address)
        experiment = client.get_experiment_by_name("dsd")
        (kept,) = client.search_runs([experiment.experiment_id])

        def metric(name):
            history = client.get_metric_history(kept.info.run_id, name)
            return {each.step: each.value for each in history}

        assert kept.data.params["sparsity"] == "0.5"
        assert metric("dsd_phase") == PHASES
        assert metric("dsd_epochs_left") == LEFT
        assert metric("dsd_learning_rate") == pytest.approx(RATES)
        check_sparsity(metric("dsd_sparsity"))
        assert list(metric("loss")) == [0, 1, 2, 3]
        artifacts = pathlib.Path(client.download_artifacts(kept.info.run_id, "", tmp_path))
        report = json.loads((artifacts / "end_of_sparse.json").read_text())
        assert report["sparsity"] == 0.5 and len(report["weights"]) == 3
        assert (artifacts / "phases.png").read_bytes().startswith(b"\x89PNG")


@on_tf_keras
def test_weights_and_biases_has_them_without_a_network(tmp_path):
    pytest.importorskip("wandb", reason="needs Weights & Biases: make wandb")
    run("wandb_run.py", tmp_path, f"--folder={tmp_path}")
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    epochs = {row["epoch/epoch"]: row for row in wandb_history(file.read_bytes())}
    assert {epoch: row["epoch/dsd_phase"] for epoch, row in epochs.items()} == PHASES
    assert {epoch: row["epoch/dsd_epochs_left"] for epoch, row in epochs.items()} == LEFT
    rates = {epoch: row["epoch/dsd_learning_rate"] for epoch, row in epochs.items()}
    assert rates == pytest.approx(RATES)
    check_sparsity({epoch: row["epoch/dsd_sparsity"] for epoch, row in epochs.items()})
    assert list(file.parent.glob("files/media/images/phases*.png"))


def wandb_history(data):
    """Yields what was logged. A file is LevelDB's log with its own header, seven bytes long."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert data.startswith(b":W&B")
    place, parts, block = 7, b"", 2**15
    while place < len(data):
        if block - place % block < 7:  # no room for the head of a part
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, parts = Record.FromString(parts), b""
            if record.WhichOneof("record_type") == "history":
                yield {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
