"""The example of PyTorch's DistributedDataParallel: the ranks train as one process does."""

import importlib.util
import os
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import programs

dist = pytest.importorskip("torch.distributed")

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "distributed"
TIMEOUT = 600
STEPS = 20  # in each of the five epochs

# Runs the example, and looks at the weights after each of its updates. In float64: in float32 the
# order of a sum may tell which of two weights is pruned. Adam divides by as little as 1e-8, so
# weights agree to about that, and the tolerance is 1e-6.
PROGRAM = """
import os, pathlib
import keras, numpy as np, torch_ddp
from torch_ddp import dsd

class Watched(dsd.DSDLoop):
    def __init__(self, model, optimizer, schedule):
        rank = os.environ.get("RANK", "alone")
        self.history = dsd.WeightHistory(os.environ["WEIGHTS"].format(rank))
        schedule.observers = (self.history,)
        super().__init__(model, optimizer, schedule)
        self.model = model

    def apply_masks(self):
        super().apply_masks()
        for weight in dsd.weights(self.model):
            zeros = np.array(-1) if weight.mask is None else weight.numpy()[~weight.mask] == 0
            held.append(int(zeros.all()) * zeros.size if zeros.ndim else -1)

    def end_epoch(self):
        for weight in dsd.weights(self.model):
            if weight.mask is not None:
                seen["mask of " + weight.path] = weight.mask
        return super().end_epoch()

    def end(self):
        super().end()
        seen["held"] = np.array(held)
        seen["history"] = np.array(self.history.to_json())
        seen.update({str(i): value for i, value in enumerate(self.model.get_weights())})

held, seen = [], {}

def main(argv):
    keras.config.set_floatx("float64")
    dsd.DSDLoop = Watched
    torch_ddp.main(argv)
    np.savez(pathlib.Path(argv[1], os.environ["RANK"]), **seen)

if __name__ == "__main__":
    torch_ddp.define_flags()
    torch_ddp.app.run(main)
"""


def run(number, *command, **environment):
    """Runs a program on several ranks and returns what it printed."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
    code, printed = programs.launched([*torchrun, *command], TIMEOUT, **environment)
    assert code == 0, printed[-3000:]
    return printed


def train_alone(program, folder, monkeypatch):
    """Runs the example in this process, on the batches of both ranks; returns what was seen."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("watched_ddp", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(dsd, "DSDLoop", module.Watched)
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    dist.init_process_group("gloo", init_method=f"file://{folder / 'init'}", rank=0, world_size=1)
    try:
        module.torch_ddp.train(0.5, [1, 3, 1], 64, 0, None)
    finally:
        dist.destroy_process_group()
        keras.config.set_floatx(floatx)
    return module.seen


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_ranks_train_as_one_process_does(number, tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "weights_{}.json"))
    flags = ("--phases=1,3,1", f"--batch_size={64 // number}", f"--save={tmp_path / 'model.keras'}")
    printed = run(number, program, tmp_path, *flags, PYTHONPATH=path)
    alone = train_alone(program, tmp_path, monkeypatch)

    ranks = [np.load(tmp_path / f"{rank}.npz") for rank in range(number)]
    sizes = [64 * 64 // 2, 64 * 64 // 2, 64 * 10 // 2]
    dense = [-1] * len(sizes) * STEPS
    for seen in ranks:
        assert seen["held"].tolist() == dense + sizes * STEPS * 3 + dense
        assert set(seen) == set(alone)
        for name, value in alone.items():
            if name == "history":  # of weights that are equal to 1e-6
                assert seen[name] == ranks[0][name]
            elif name.startswith("mask of"):
                np.testing.assert_array_equal(seen[name], value)
            else:
                np.testing.assert_allclose(seen[name], value, rtol=0, atol=1e-6)
    assert sum(name.startswith("mask of") for name in alone) == len(sizes)
    written = sorted(path.name for path in tmp_path.glob("weights_*"))
    assert written == ["weights_0.json", "weights_alone.json"]  # rank 0's, of those together
    saved = keras.saving.load_model(tmp_path / "model.keras")
    for index, value in enumerate(saved.get_weights()):
        np.testing.assert_array_equal(value, ranks[0][str(index)])

    lines = [re.findall(rf"^\[{rank}\] (.*)$", printed, re.M) for rank in range(number)]
    assert lines.count(lines[0]) == number
    assert [line[:7] for line in lines[0]] == ["phase 0", "phase 1", "phase 2", *["mask of"] * 3]
    assert "sparsity 50.00%" in lines[0][1]
