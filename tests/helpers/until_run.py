"""A worker whose phases end when they have converged, and share a folder.

python -m tests.helpers.until_run FOLDER INDEX
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tf_keras

import keras_dsd as dsd
from tests.helpers.distributed_run import compiled, data

folder, index = pathlib.Path(sys.argv[1]), sys.argv[2]
strategy = tf.distribute.MultiWorkerMirroredStrategy()
model = dsd.apply(compiled(strategy, lambda: tf_keras.optimizers.SGD(0.5, momentum=0.9)), 0.4)
phases = [
    dsd.DensePhase(6, until=dsd.Plateau("val_loss", patience=1, restore_best=True)),
    dsd.SparsePhase(6, until=dsd.Plateau("loss", patience=1, restore_best=True)),
    dsd.DensePhase(3, lr=0.1),
]
history = model.fit(
    *data(), batch_size=64, epochs=15, shuffle=False, verbose=0, validation_data=data(),
    callbacks=[dsd.DSDSchedule(phases=phases, backup_dir=folder / "backup")],
).history  # fmt: skip
np.savez(folder / f"{index}.npz", *model.get_weights())
(folder / f"{index}.json").write_text(json.dumps(history))
