"""Runs the training of train.py on the workers of a Ray cluster, or of this machine without one.

Ray sets TF_CONFIG, stores the backups of BackupAndRestore, and restarts all workers from them when
one of them fails.

    python examples/distributed/ray_train.py --workers=2 --sparsity=0.5
"""

import os
import pathlib
import tempfile

# Before Ray is imported. By itself it shows what several workers print once, and the rest twice.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")

import ray.train
import tensorflow as tf
import tf_keras
import train
from absl import app, flags
from ray.train.tensorflow import TensorflowTrainer


class Report(tf_keras.callbacks.Callback):
    """Reports each epoch to Ray, with the folder that BackupAndRestore has just written.

    Args:
        folder: The folder.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        """Waits for all workers; the chief's folder is copied to the storage of the run."""
        is_chief = ray.train.get_context().get_world_rank() == 0
        checkpoint = ray.train.Checkpoint.from_directory(self.folder) if is_chief else None
        ray.train.report({"epoch": epoch, **(logs or {})}, checkpoint=checkpoint)


def work(arguments, further=()):
    """Trains on one worker, from the checkpoint of Ray if there is one.

    Every worker restores from its own copy, so no shared folder is needed.
    """
    checkpoint = ray.train.get_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint is not None:
            checkpoint.to_directory(folder)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        arguments = {**arguments, "backup_dir": folder}
        train.train(strategy, **arguments, further=[Report(folder), *further])


def start(work, arguments, workers, gpus=False, storage=None, max_failures=3):
    """Runs `work` with `arguments` on all workers and returns Ray's result."""
    return TensorflowTrainer(
        work,
        train_loop_config=arguments,
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=ray.train.RunConfig(
            storage_path=storage,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    ).fit()


def main(argv):
    del argv
    given = flags.FLAGS
    storage = given.storage and (given.storage if "://" in given.storage
                                 else str(pathlib.Path(given.storage).absolute()))  # fmt: skip
    result = start(work, train.given(), given.workers, given.gpus, storage, given.max_failures)
    print(f"Ray kept the run in {result.path}")


if __name__ == "__main__":
    train.define_flags()
    flags.DEFINE_integer("workers", 2, "Number of workers, each with its own CPU or GPU.")
    flags.DEFINE_bool("gpus", False, "Whether each worker gets a GPU.")
    flags.DEFINE_string("storage", None, "Folder or URI of Ray's, of all machines. ~/ray_results.")
    flags.DEFINE_integer("max_failures", 3, "Number of restarts after failures.")
    app.run(main)
