"""The ways to start training on many workers: manually with TF_CONFIG, by Ray, on Kubernetes."""

import importlib.util
import json
import os
import pathlib
import re
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import programs

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "distributed"
LAUNCHER = FOLDER / "launch_local.py"
THREE_MASKS = {"conv2d/kernel", "dense/kernel", "dense_1/kernel"}
TIMEOUT = 600

# Trains as the example does, but worker 1 kills itself once, within the third epoch: it is sparse.
KILLED = """
import json, os, pathlib, signal, sys
import tf_keras, train

class Kill(tf_keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        marker = pathlib.Path(os.environ["KILLED_ONCE"])
        is_other = json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1
        if self.epoch == 2 and batch == 3 and is_other and not marker.exists():
            masks = {w.path: train.digest_of(w.mask) for w in train.dsd.weights(self.model)}
            marker.write_text(json.dumps(masks))
            os.kill(os.getpid(), signal.SIGKILL)
"""
BY_HAND = """
train.define_flags()
def main(argv):
    strategy = train.STRATEGIES["workers"]()
    train.train(strategy, **train.given(), further=[Kill()])
train.app.run(main)
"""
BY_RAY = """
import ray_train
def work(arguments):
    ray_train.work(arguments, further=[Kill()])
arguments = {"sparsity": 0.5, "phases": [1, 3, 1], "batch_size": 32, "seed": 0, "mnist": None,
             "backup_dir": None, "export_dir": None}
if __name__ == "__main__":
    ray_train.start(work, arguments, workers=2, storage=sys.argv[1])
"""


def run(*command, **environment):
    """Runs a Python program; returns its exit code and what it printed."""
    return programs.launched(command, TIMEOUT, **environment)


def said_by(printed, worker):
    """Returns the lines of a worker with the results of phases, and the digests by path."""
    lines = re.findall(rf"^.*{worker}\S* (phase \d ended .*)$", printed, re.M)
    return lines, dict(re.findall(rf"^.*{worker}\S* mask of (\S+): (\w{{16}})$", printed, re.M))


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.slow
def test_two_workers_train_as_one_device_does(tmp_path):
    code, printed = run(
        LAUNCHER, "--workers=2", "--", "--phases=1,1,1", "--batch_size=32",
        f"--backup_dir={tmp_path / 'backup'}", f"--export_dir={tmp_path / 'model'}",
    )  # fmt: skip
    assert code == 0, printed[-3000:]
    lines, digests = said_by(printed, r"\[0")
    assert (lines, digests) == said_by(printed, r"\[1")
    assert [line[:7] for line in lines] == ["phase 0", "phase 1", "phase 2"]
    assert "sparsity 50.00%" in lines[1]
    assert set(digests) == THREE_MASKS
    assert printed.count("2 replicas, batches of 64 images") == 2
    assert sorted(p.name for p in tmp_path.rglob("*") if p.name == "saved_model.pb" or
                  p.name.startswith(("ckpt", "workertemp"))) == ["saved_model.pb"]  # fmt: skip

    train = module("train")
    one = tmp_path / "one"
    train.train(tf.distribute.get_strategy(), 0.5, [1, 1, 1], 64, 0, None, None, str(one))
    images, labels = train.load(None)[1]
    models = [tf.saved_model.load(str(folder)) for folder in (tmp_path / "model", one)]
    of_two, of_one = (model.serve(images).numpy() for model in models)
    assert np.abs(of_two - of_one).mean() < 1e-3
    assert f"test accuracy {np.mean(of_two.argmax(1) == labels):.2%}" in lines[2]


@pytest.mark.slow
def test_launcher_ends_the_others_when_a_worker_fails(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, pathlib, sys, time\n"
        "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
        "pathlib.Path(sys.argv[1], str(index)).write_text(str(os.getpid()))\n"
        "while not pathlib.Path(sys.argv[1], '0').exists(): time.sleep(0.01)\n"
        "print('lives', flush=True)\n"
        "sys.exit(3) if index else time.sleep(120)\n"
    )
    began = time.monotonic()
    code, printed = run(LAUNCHER, f"--program={program}", "--", tmp_path)
    assert code == 1
    assert "[0] lives" in printed
    assert "worker 1 ended with 3: the others are ended" in printed
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "0").read_text()), 0)


@pytest.mark.slow
@pytest.mark.exhaustive  # as test_multi_worker.py has it without the launcher
def test_workers_resume_where_one_was_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLED + BY_HAND)
    command = (LAUNCHER, f"--program={program}", "--", "--phases=1,3,1",
               f"--backup_dir={tmp_path / 'backup'}")  # fmt: skip
    environment = {"PYTHONPATH": _path(FOLDER), "KILLED_ONCE": str(tmp_path / "killed")}
    code, printed = run(*command, **environment)
    assert code == 1
    assert "worker 1 ended with -9" in printed
    code, printed = run(*command, **environment)
    assert code == 0, printed[-3000:]
    _check_went_on(printed, tmp_path / "killed", r"\[0", r"\[1")


@pytest.mark.slow
@pytest.mark.exhaustive  # as test_multi_worker.py has it without Ray
def test_ray_starts_again_where_a_worker_was_killed(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    program = tmp_path / "program.py"
    program.write_text(KILLED + BY_RAY)
    code, printed = run(
        program, tmp_path / "ray", PYTHONPATH=_path(FOLDER), KILLED_ONCE=str(tmp_path / "killed"),
        RAY_USAGE_STATS_ENABLED="0", RAY_ADDRESS="local",  # none that runs already
    )  # fmt: skip
    assert code == 0, printed[-3000:]
    printed = re.sub(r"\x1b\[\d+m", "", printed)
    workers = sorted(set(re.findall(r"^\(RayTrainWorker (pid=\d+)\S* phase", printed, re.M)))
    assert len(workers) == 2
    _check_went_on(printed, tmp_path / "killed", *workers)


def _documents():
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((FOLDER / "kubernetes" / "tfjob.yaml").read_text()))


def _check_schema(value, kind, place, models):
    """Raises ValueError where `value` is not what the class of Kubernetes' API `kind` asks for."""
    of_many = re.fullmatch(r"list\[(.*)\]|dict\(str, (.*)\)", kind)
    if of_many:
        if not isinstance(value, list if of_many[1] else dict):
            raise ValueError(f"{place}: {value!r} is no {kind}")
        for key, each in enumerate(value) if of_many[1] else value.items():
            _check_schema(each, of_many[1] or of_many[2], f"{place}.{key}", models)
    elif kind in models:
        model = models[kind]
        names = {field: name for name, field in model.attribute_map.items()}
        if not isinstance(value, dict) or set(value) - set(names):
            raise ValueError(f"{place}: unknown fields for a {kind}: {value}")
        for field, each in value.items():
            _check_schema(each, model.openapi_types[names[field]], f"{place}.{field}", models)
        model(**{names[field]: each for field, each in value.items()})  # raises what is missing
    elif not isinstance(value, {"str": str, "int": int, "bool": bool}[kind]):
        raise ValueError(f"{place}: {value!r} is no {kind}")


@pytest.fixture(scope="module")
def check_tfjob():
    kubeflow = pytest.importorskip("kubeflow.training.models", reason="kubeflow-training")
    kubernetes = pytest.importorskip("kubernetes.client.models")
    models = {**vars(kubernetes), **vars(kubeflow)}

    def check(documents):
        kinds = ["V1PersistentVolumeClaim", "KubeflowOrgV1TFJob"]
        for document, kind in zip(documents, kinds, strict=True):
            _check_schema(document, kind, kind, models)

    return check


def test_tfjob_follows_the_schema(check_tfjob):
    check_tfjob(_documents())


@pytest.mark.parametrize(
    ("path", "field", "misspelt"),
    [
        ((), "spec", "specs"),
        (("spec",), "runPolicy", "runpolicy"),
        (("spec",), "successPolicy", "succesPolicy"),
        (("spec", "runPolicy"), "backoffLimit", "backOffLimit"),
        (("spec", "tfReplicaSpecs", "Worker"), "restartPolicy", "restartPolice"),
        (("spec", "tfReplicaSpecs", "Worker", "template", "spec"), "containers", "container"),
        (("spec", "tfReplicaSpecs", "Worker", "template", "spec", "containers", 0), "name", "Name"),
        (("spec", "tfReplicaSpecs", "Worker", "template", "spec", "containers", 0),
         "volumeMounts", "volumesMounts"),
        (("spec", "tfReplicaSpecs", "Worker", "template", "spec", "volumes", 0,
          "persistentVolumeClaim"), "claimName", "claimname"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.parametrize("kept", [False, True], ids=["renamed", "doubled"])
def test_a_misspelt_field_of_a_tfjob_is_found(check_tfjob, path, field, misspelt, kept):
    documents = _documents()
    place = documents[1]
    for step in path:
        place = place[step]
    place[misspelt] = place[field] if kept else place.pop(field)
    with pytest.raises(ValueError, match=f"unknown fields.*{misspelt}"):
        check_tfjob(documents)


@pytest.mark.parametrize("field", ["runPolicy", "tfReplicaSpecs"])
def test_a_missing_field_of_a_tfjob_is_found(check_tfjob, field):
    documents = _documents()
    del documents[1]["spec"][field]
    with pytest.raises(ValueError, match="must not be `None`"):
        check_tfjob(documents)


def test_tfjob_goes_with_the_program_and_its_image():
    claim, job = _documents()
    spec = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "tensorflow"  # the operator looks for this name
    assert spec["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = container["volumeMounts"]
    given = dict(argument[2:].split("=") for argument in container["args"])
    flags = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (FOLDER / "train.py").read_text())
    assert set(given) <= set(flags)
    assert given["backup_dir"].startswith(f"{mount['mountPath']}/")
    assert given["export_dir"].startswith(f"{mount['mountPath']}/")
    dockerfile = (FOLDER / "kubernetes" / "Dockerfile").read_text()
    sources = [
        path for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M) for path in line.split()
    ]
    assert "examples/distributed/train.py" in sources
    assert all((FOLDER.parents[1] / source).exists() for source in sources)


def _path(*folders):
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])


def _check_went_on(printed, marker, *workers):
    """Checks that it trained from the third epoch, and under the masks of before."""
    lines, digests = said_by(printed, workers[0])
    assert (lines, digests) == said_by(printed, workers[1])
    assert [line[:26] for line in lines] == [
        "phase 1 ended with epoch 4", "phase 2 ended with epoch 5",
    ]  # fmt: skip
    assert "sparsity 50.00%" in lines[0]
    assert digests == json.loads(marker.read_text())
