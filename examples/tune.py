"""Looks for a sparsity and for the lengths of the phases with keras-tuner, on digits.

Every trial trains for as many epochs in all, and counts by its loss at the end of the last phase:
the best epoch of a trial may be one of its sparse phase. The best trial is then trained again
beside plain training of the same budget, from other seeds and judged on other images.

    KERAS_BACKEND=jax python examples/tune.py --trials=10
"""

import tempfile

import keras
import keras_tuner
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd

FLAGS = flags.FLAGS
flags.DEFINE_integer("trials", 10, "How many settings to try.")
flags.DEFINE_integer("epochs", 40, "Epochs of a trial, all phases together; at least 5.")
flags.DEFINE_integer("seeds", 5, "How often to train the best setting, and plainly.")
flags.DEFINE_integer("seed", 0, "Seed of the search and the split.")


def build():
    layers = keras.layers
    hidden = [layers.Dense(128, activation="relu"), layers.Dense(64, activation="relu")]
    return keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(10)])


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


class DenseSparseDense(keras_tuner.HyperModel):
    """A search with keras-tuner over the sparsity and the ends of two phases."""

    def build(self, hp):
        """Returns a model with a sparsity to try."""
        sparsity = hp.Float("sparsity", 0.1, 0.8, step=0.1)
        return compiled(dsd.apply(build(), sparsity=sparsity))

    def fit(self, hp, model, x, y, callbacks=(), **options):
        """Trains a model by phases to try, and returns what it came to."""
        half = FLAGS.epochs // 2
        dense, sparse = hp.Int("dense", 1, half), hp.Int("sparse", 1, half - 1)
        schedule = dsd.DSDSchedule(dense, sparse, FLAGS.epochs - dense - sparse)
        every = [schedule, *callbacks]
        history = model.fit(x, y, epochs=FLAGS.epochs, callbacks=every, **options).history
        return {"val_loss": history["val_loss"][-1]}


def losses_of(make, train_data, test_data):
    """Returns the test loss of models that `make` trains, a seed each."""
    losses = []
    for seed in range(1, FLAGS.seeds + 1):
        keras.utils.set_random_seed(seed)
        losses.append(make(*train_data).evaluate(*test_data, verbose=0))
    return losses


def main(argv):
    del argv
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=0.3, random_state=FLAGS.seed, stratify=labels
    )
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.3, random_state=FLAGS.seed)
    hypermodel = DenseSparseDense()
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            hypermodel, keras_tuner.Objective("val_loss", "min"), max_trials=FLAGS.trials,
            seed=FLAGS.seed, directory=folder, project_name="dsd",
        )  # fmt: skip
        tuner.search(x, y, validation_data=(x_val, y_val), verbose=0)
        trials = tuner.oracle.get_best_trials(FLAGS.trials)
    print("sparsity  dense  sparse  loss on validation images")
    for trial in trials:
        values = trial.hyperparameters.values
        print("{sparsity:8.1f}  {dense:5d}  {sparse:6d}".format(**values), f"{trial.score:12.4f}")

    best = trials[0].hyperparameters

    def by_dsd(x, y):
        model = hypermodel.build(best)
        hypermodel.fit(best, model, x, y, validation_data=(x_val, y_val), verbose=0)
        return dsd.strip(model)

    def plainly(x, y):
        model = compiled(build())
        model.fit(x, y, epochs=FLAGS.epochs, verbose=0)
        return model

    print(f"loss on {len(y_test)} test images, mean (standard deviation) of {FLAGS.seeds} seeds")
    for name, make in {"best trial": by_dsd, "plain training": plainly}.items():
        losses = losses_of(make, (x, y), (x_test, y_test))
        print(f"{name:15} {np.mean(losses):.4f} ({np.std(losses, ddof=1):.4f})")


if __name__ == "__main__":
    app.run(main)
