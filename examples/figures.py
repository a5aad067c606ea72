"""Draws the figures of a real run: a small convolutional network on scikit-learn's digits.

KERAS_BACKEND=jax python examples/figures.py --seed=3 --folder=figures
"""

import pathlib
import platform

import keras
import matplotlib
from absl import app, flags
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd
from keras_dsd.utils.figures import COLOURS, shade
from keras_dsd.visualization.histogram import total

FLAGS = flags.FLAGS
flags.DEFINE_float("sparsity", 0.3, "Fraction of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("epochs", 10, "Epochs of each of the three phases.")
flags.DEFINE_integer("seeds", 3, "Number of seeds for the comparison with plain training.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the split and the batches.")
flags.DEFINE_string("folder", "docs/figures", "Where to write the figures.")


def build():
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu", name="first"),
        layers.Conv2D(32, 3, activation="relu", name="second"), layers.Flatten(),
        layers.Dense(64, activation="relu", name="hidden"), layers.Dense(10, name="digits"),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def overview(weights, history, sparsity):
    """Figure of the run: the weights in each phase, and the learning curve below them."""
    figure = Figure(figsize=(10, 4.8), layout="constrained", facecolor="white")
    grid = [["dense", "sparse", "re-dense"], ["loss"] * 3]
    panels = figure.subplot_mosaic(grid, height_ratios=[3, 2])
    titles = {
        "before pruning": "1. dense: all weights train",
        "end of sparse": f"2. sparse: {sparsity:.0%} stay at zero",
        "last re-dense epoch": "3. re-dense: pruned weights regrow",
    }
    shown = [each for each in weights.snapshots if each.name in titles]
    for snapshot, axes in zip(shown, panels.values(), strict=False):
        kept = [each.stayed or each.values for each in snapshot.weights]
        regrown = [each.returned for each in snapshot.weights if each.returned is not None]
        width = total(kept).exponent
        for parts, colour in ((kept, COLOURS["dense"]), (regrown, COLOURS["sparse"])):
            if parts and (group := total(parts, width)).counts:
                axes.stairs(group.counts, group.edges, fill=True, color=colour)
        num_zeros = sum(each.values.num_zeros for each in snapshot.weights)
        axes.bar(0, num_zeros, width=0.004, color="black")
        axes.set(xlim=(-0.25, 0.25), ylim=(0, 1000), yticks=[])
        axes.set_title(titles[snapshot.name], fontsize="medium")
        axes.set_xlabel(
            f"value of a weight; {num_zeros:,} at zero" if num_zeros else "value of a weight"
        )
    for number, phase in enumerate(grid[0]):
        shade(panels["loss"], number * FLAGS.epochs, (number + 1) * FLAGS.epochs, phase, "")
    for name, style in (("loss", "-"), ("val_loss", "--")):
        losses = history.history[name]
        label = "training" if name == "loss" else "validation"
        panels["loss"].plot(range(1, len(losses) + 1), losses, "k" + style, label=label)
    panels["loss"].set(xlabel="epoch", ylabel="loss", yscale="log", xlim=(0, 3 * FLAGS.epochs))
    panels["loss"].legend(loc="upper right", fontsize="small")
    return figure


def main(argv):
    del argv
    keras.utils.set_random_seed(FLAGS.seed)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = train_test_split(images, labels, test_size=0.3, random_state=FLAGS.seed)
    train_data, test_data = split[::2], split[1::2]
    half = len(test_data[0]) // 2
    validation_data = tuple(part[:half] for part in test_data)
    rest = tuple(part[half:] for part in test_data)
    parts = {"train": tuple(train_data), "validation": validation_data, "test": rest}

    model = dsd.apply(build(), sparsity=FLAGS.sparsity)
    weights = dsd.WeightHistory()
    schedule = dsd.DSDSchedule(*[FLAGS.epochs] * 3, observers=[weights])
    history = model.fit(
        *train_data, validation_data=test_data, epochs=3 * FLAGS.epochs, verbose=0,
        callbacks=[schedule],
    )  # fmt: skip
    scan = dsd.sensitivity(model, lambda m: m.evaluate(*test_data, verbose=0)[0])

    result = dsd.compare(build, parts, phases=schedule.timeline.phases, seeds=FLAGS.seeds,
                         sparsity=FLAGS.sparsity)  # fmt: skip
    print(result)

    figures = {
        "overview": overview(weights, history, FLAGS.sparsity),
        "sensitivity": scan.plot(),
        "comparison": result.plot(),
    }
    folder = pathlib.Path(FLAGS.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
        print(f"{path}  {path.stat().st_size:,} bytes")
    versions = f"keras {keras.__version__} on {keras.backend.backend()}"
    print(f"seed {FLAGS.seed}, keras_dsd {dsd.__version__}, {versions}, "
          f"matplotlib {matplotlib.__version__}, Python {platform.python_version()}")  # fmt: skip


if __name__ == "__main__":
    app.run(main)
