"""Runs a task of the protocol, or resumes it: tuning first, then the seeds that are reported.

    python benchmarks/studies/run.py --task=mnist-shifts --data=mnist.npz --seeds=30

Results are written to benchmarks/studies/results/TASK.json.gz after each seed and setting.
"""

import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
# The networks are small: one core trains them faster than two that wait for each other.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import jax
from absl import app, flags, logging
from protocol import FIRST_TUNING_SEED, SINGLE, Setting, chosen_settings
from records import Records
from tasks import TASKS
from trials import Task, train_probe, train_seed, train_tuning

CACHE = pathlib.Path(__file__).parents[2] / ".build" / "jax-cache"
RESULTS = pathlib.Path(__file__).parent / "results"
FLAGS = flags.FLAGS
flags.DEFINE_enum("task", None, [task.name for task in TASKS], "The task.", required=True)
flags.DEFINE_string("data", None, "The task's data; docs/results.md says where they are from.")
flags.DEFINE_integer("seeds", None, "How many seeds to report; none: as many as the task says.")
flags.DEFINE_string("results", str(RESULTS), "The folder of the results.")


def main(argv: list[str]) -> None:
    del argv
    # Each arm compiles its programs again; they are those of the seed before.
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    task = next(each for each in TASKS if each.name == FLAGS.task)
    number = FLAGS.seeds or task.num_seeds
    records = Records(pathlib.Path(FLAGS.results, f"{task.name}.json.gz"), identity(task))
    tune(task, records)
    chosen = chosen_settings(records.tuning)
    for seed in range(number):
        missing = records.missing(seed, chosen)
        for base in sorted({(setting.lr, setting.l2) for setting in missing.values()}):
            records.add(train_seed(task, FLAGS.data, seed, base, missing))
            logging.info("%s: seed %d at lr, l2 = %s is done", task.name, seed, base)


def tune(task: Task, records: Records) -> None:
    """Trains the tuning seeds that are missing, and what is probed on one of them."""
    for lr, l2 in task.probed:
        if records.missing(FIRST_TUNING_SEED, {SINGLE: Setting(l2, lr)}):
            records.add(train_probe(task, FLAGS.data, FIRST_TUNING_SEED, (lr, l2)))
            logging.info("%s: lr, l2 = %s is probed", task.name, (lr, l2))
    for seed in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + task.num_tuning_seeds):
        for base in task.bases:
            if not records.has(seed, base):
                records.add(train_tuning(task, FLAGS.data, seed, base), base)
                logging.info("%s: tuning seed %d at lr, l2 = %s is done", task.name, seed, base)


def identity(task: Task) -> dict[str, object]:
    """Returns what tells a task from others."""
    lr, l2 = task.bases[0]
    return {
        "weights": task.build(Setting(l2, lr)).count_params(),
        "task": task.name, "words": task.words, "data": task.data,
        "lengths": vars(task.lengths), "bases": [list(base) for base in task.bases],
        "sparsities": list(task.sparsities), "exclude": list(task.exclude),
        "tuning seeds": task.num_tuning_seeds, "seeds": task.num_seeds,
    }  # fmt: skip


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    app.run(main)
