"""A worker that trains with DSD and BackupAndRestore, and may be killed in the sparse phase.

    python -m tests.helpers.backup_run FOLDER INDEX LAST

FOLDER is shared; LAST is the epoch in whose third batch the second worker is killed, or -1.
"""

import os
import pathlib
import signal
import sys

import numpy as np
import tensorflow as tf
import tf_keras

from tests.helpers.distributed_run import train

strategy = tf.distribute.MultiWorkerMirroredStrategy()
folder, index, last = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


class Kill(tf_keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (index, self.epoch, batch) == (1, last, 2):
            os.kill(os.getpid(), signal.SIGKILL)


backup = tf_keras.callbacks.BackupAndRestore(str(folder / "backup"))
model, look = train(strategy, tf_keras.optimizers.Adam, callbacks=[backup, Kill()])
np.savez(folder / f"{index}.npz", *model.get_weights(), values=look.values, masks=look.masks)
