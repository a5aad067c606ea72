"""Trains on scikit-learn's digits with DSD, and logs the run with MLflow.

The MLflow callback reads phase, sparsity, remaining epochs and the learning rate in use from the
logs, as it comes after DSDSchedule. Start a server first, and open http://127.0.0.1:5000:

    mlflow server --backend-store-uri sqlite:///mlflow.db --port 5000
    python examples/tracking/mlflow_run.py --sparsity=0.5
"""

import importlib
import os

from absl import app, flags
from sklearn.datasets import load_digits

import keras_dsd as dsd

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else it reports that it is used
import mlflow

FLAGS = flags.FLAGS
flags.DEFINE_enum("keras", "3", ["2", "3"], "2: tf_keras. 3: Keras 3, on $KERAS_BACKEND.")
flags.DEFINE_string("tracking_uri", "http://127.0.0.1:5000", "Where the server is.")
flags.DEFINE_float("sparsity", 0.5, "Fraction of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("dense", 10, "Epochs of the first, dense phase.")
flags.DEFINE_integer("sparse", 10, "Epochs of the sparse phase.")
flags.DEFINE_integer("redense", 10, "Epochs of the last phase, dense again.")
flags.DEFINE_integer("seed", 0, "Seed of the weights and the batches.")


def build(keras):
    layers = keras.layers
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(32, activation="relu")]
    return keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(10, activation="softmax")])


def main(argv):
    del argv
    if FLAGS.keras == "2":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # mlflow.tensorflow takes tf.keras to be tf_keras
    keras = importlib.import_module("tf_keras" if FLAGS.keras == "2" else "keras")
    flavour = mlflow.tensorflow if FLAGS.keras == "2" else mlflow.keras
    images, labels = load_digits(return_X_y=True)
    keras.utils.set_random_seed(FLAGS.seed)
    model = dsd.apply(build(keras), sparsity=FLAGS.sparsity)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    schedule = dsd.DSDSchedule(FLAGS.dense, FLAGS.sparse, FLAGS.redense)

    def keep_report(epoch, logs):
        if epoch + 1 == FLAGS.dense + FLAGS.sparse:
            mlflow.log_dict(dsd.report(model).to_dict(), "end_of_sparse.json")

    mlflow.set_tracking_uri(FLAGS.tracking_uri)
    mlflow.set_experiment("dsd")
    with mlflow.start_run() as run:
        mlflow.log_params({"sparsity": FLAGS.sparsity, "phases": str(schedule.timeline)})
        model.fit(
            images / 16, labels, epochs=schedule.timeline.epochs, validation_split=0.3, verbose=2,
            callbacks=[
                schedule,
                keras.callbacks.LambdaCallback(on_epoch_end=keep_report),
                flavour.MlflowCallback(),
            ],
        )  # fmt: skip
        mlflow.log_figure(schedule.timeline.plot(), "phases.png")
    print(f"MLflow has run {run.info.run_id} at {FLAGS.tracking_uri}")


if __name__ == "__main__":
    app.run(main)
