"""A study: the arms of `dsd.compare` and several variants of DSD, on one task, all trained alike.

Every variant spends its epochs at the same learning rates, so plain training at those (`llr`) and
plain training at its own (`dense`) are controls of all of them, trained once for each seed. So are
plain training at the last of these as soon as DSD prunes (`llr at once`), for each sparsity weights
that are pruned for good (`sparse 0.3`), and what all begin with ended there (`first dense`): a
dense phase, or where there is none what `build` returns, trained before. A control may also stop at
its best epoch on validation data. What a variant gains is over the control that is best on
validation data, on test data, seed by seed.

Each study in this folder is a program:

    python benchmarks/studies/digits.py --seeds=5 --parallel=2

It goes on with what benchmarks/studies/results holds of it, so more seeds add to those.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app, flags, logging
from verdicts import of_each_variant

from keras_dsd.algorithm.timeline import DensePhase, Phase, SparsePhase, Timeline, epochs_of
from keras_dsd.analysis.comparison import dataset, training
from keras_dsd.analysis.comparison.arms import lowered_at_once, num_shared
from keras_dsd.analysis.comparison.compare import Runs
from keras_dsd.analysis.comparison.result import Comparison
from keras_dsd.engine.batch_norm import Batches

RESULTS = pathlib.Path(__file__).parent / "results"
SPARSITIES = (0.3, 0.5, 0.7, 0.9)
FLAGS = flags.FLAGS
flags.DEFINE_integer("seeds", 5, "How many seeds, counted from 0.", lower_bound=2)
flags.DEFINE_integer("parallel", 1, "How many seeds to train at a time.")
flags.DEFINE_list("only", [], "Tasks to train, by name; none: all of the study.")


@dataclasses.dataclass(frozen=True)
class Task:
    """A network and its data.

    Args:
        name: What its file and its row are called.
        words: What it is, in a sentence: data, network, optimizer, epochs.
        build: Returns a new compiled model; importable, as are the next two.
        data: Returns the three parts of the data.
        evaluate: Takes a model and a part of the data; returns `metric`.
        metric: What is compared, with its unit.
        mode: `"min"` or `"max"`.
        phases: Epochs of the dense, the sparse and the last phase.
        batch_size: What `fit` is given.
        sparsities: Those that are tried.
        sparse_lr: What the learning rate is multiplied by in the sparse phase.
        redense_lr: And in the last one.
        reset: As `DSDSchedule` takes it.
        batch_norm_batches: From how many batches the statistics of BatchNormalization are estimated
            anew where weights are pruned or return; 0: they are not.
        only: Some of the arms; none: all.
    """

    name: str
    words: str
    build: Callable[[], Any]
    data: Callable[[], Mapping[str, Any]]
    evaluate: Callable[[Any, Any], float]
    metric: str
    phases: tuple[int, int, int]
    batch_size: int | None = 128
    mode: str = "min"
    sparsities: Sequence[float] = SPARSITIES
    sparse_lr: float = 1.0
    redense_lr: float = 0.1
    reset: str = "pruned"
    batch_norm_batches: int = 0
    only: Sequence[str] = ()

    @property
    def variants(self) -> dict[str, tuple[Phase, ...]]:
        """The phases of each variant of DSD, all at the same learning rate in every epoch."""
        return self._wanted(self._every_variant())

    @property
    def arms(self) -> dict[str, tuple[Phase, ...]]:
        """The phases of every arm."""
        return self._wanted(self._every_arm())

    def _wanted(self, arms: Mapping[str, Sequence[Phase]]) -> dict[str, tuple[Phase, ...]]:
        return {name: tuple(arms[name]) for name in arms if not self.only or name in self.only}

    def _every_variant(self) -> dict[str, Sequence[Phase]]:
        dense, sparse, redense = self.phases
        first = [DensePhase(dense)] if dense else []
        last = DensePhase(redense, lr=self.redense_lr)
        found: dict[str, Sequence[Phase]] = {
            f"DSD {s:g}": [*first, SparsePhase(sparse, sparsity=s, lr=self.sparse_lr), last]
            for s in self.sparsities
        }
        third = redense // 3
        if third:
            steps = (redense - 2 * third, third, third)
            found["DSDSD 0.5, 0.25"] = [
                *first, SparsePhase(sparse, sparsity=0.5, lr=self.sparse_lr),
                DensePhase(steps[0], lr=self.redense_lr),
                SparsePhase(steps[1], sparsity=0.25, lr=self.redense_lr),
                DensePhase(steps[2], lr=self.redense_lr),
            ]  # fmt: skip
        if self.sparse_lr == 1.0:
            found["AC/DC 0.5"] = [*first, *_in_turn(sparse, 0.5), last]
        return found

    def _every_arm(self) -> dict[str, Sequence[Phase]]:
        dense, sparse, redense = self.phases
        first = [DensePhase(dense)] if dense else []
        after = [DensePhase(sparse, lr=self.sparse_lr), DensePhase(redense, lr=self.redense_lr)]
        for_good = {
            f"sparse {s:g}": [
                *first, SparsePhase(sparse, sparsity=s, lr=self.sparse_lr),
                SparsePhase(redense, sparsity=s, lr=self.redense_lr),
            ]
            for s in self.sparsities
        }  # fmt: skip
        at_once = lowered_at_once([*first, SparsePhase(sparse), after[-1]])
        return {
            "dense": [DensePhase(sum(self.phases))], "llr": [*first, *after],
            "llr at once": at_once, **for_good, **self._every_variant(),
        }  # fmt: skip


def _in_turn(epochs: int, sparsity: float) -> list[Phase]:
    """Returns sparse and dense phases in turn, as AC/DC has them, sparse at the end."""
    each = max(epochs // 5, 1)
    phases: list[Phase] = []
    while (left := epochs - epochs_of(phases)) > 0:
        length = min(each, left)
        sparse = len(phases) % 2 == 0
        phases.append(SparsePhase(length, sparsity=sparsity) if sparse else DensePhase(length))
    return phases


def main(tasks: Sequence[Task]) -> None:
    """Parses the flags, trains the tasks and prints what came of each."""

    def train(argv: list[str]) -> None:
        del argv
        for task in tasks:
            if not FLAGS.only or task.name in FLAGS.only:
                for variant, result in run(task, range(FLAGS.seeds), FLAGS.parallel).items():
                    print(f"==== {task.name}: {variant}\n{result}\n", flush=True)

    for flag in ("seeds", "parallel", "only"):  # --help tells of the program's own flags alone
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[flag])
    app.run(train)


def run(task: Task, seeds: Sequence[int], parallel: int) -> dict[str, Comparison]:
    """Trains what is missing, and returns the comparison of each variant with all controls."""
    logging.set_verbosity(logging.WARNING)
    job = _job(task)
    keras.utils.set_random_seed(seeds[0])  # a model is looked at before a seed is set
    job, identity = training.inspect(job, seeds[0])
    identity = {
        **identity, "task": task.name, "words": task.words, "metric": task.metric,
        "mode": task.mode, "keras": f"{keras.__version__} on {keras.backend.backend()}",
        "arms": {name: str(Timeline(phases)) for name, phases in job.arms.items()},
        "reset": job.reset, "data": dict(job.digests),
        "batch size": task.batch_size, "batch norm batches": task.batch_norm_batches,
        "variants": list(task.variants),
    }  # fmt: skip
    file = RESULTS / f"{task.name}.json"
    runs = Runs(job, seeds, file, identity)
    runs.train(parallel, progress=True)
    return of_each_variant(identity, runs.in_order())


def _job(task: Task) -> training.Job:
    read = task.data()
    dataset.check_data(read, 1.0)
    batches = None
    if task.batch_norm_batches:
        x, size = read["train"][0], task.batch_size
        data = [x[begin : begin + size] for begin in range(0, len(x), size)]
        batches = Batches(data, task.batch_norm_batches)
    return training.Job(
        build=task.build, data=task.data, digests=dataset.digest(read), arms=task.arms,
        num_shared=num_shared(task.arms), apply_options={"sparsity": 0.3}, reset=task.reset,
        batches=batches, evaluate=task.evaluate, mode=task.mode,
        fit_options={} if task.batch_size is None else {"batch_size": task.batch_size},
    )  # fmt: skip


def error(model: Any, part: tuple[Any, Any]) -> float:
    """Returns how many of the labels the model gets wrong, in percent."""
    x, y = part
    # predict builds a pipeline first, which takes longer than these small networks do.
    batches = (x[begin : begin + 1000] for begin in range(0, len(x), 1000))
    predicted = np.concatenate([model.predict_on_batch(batch).argmax(axis=-1) for batch in batches])
    return 100 * float((predicted != y).mean())
