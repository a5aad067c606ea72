"""Studies on MNIST that begin with a LeNet-5 trained earlier: no first dense phase.

In `converged` all arms go on from a network that was trained for long on the same 2,000 images,
its learning rate falling to 0, at the rate which that began with: DSD as the paper has it. In
`transfer` it was trained on the digits 0 to 4, and all arms go on with few images of 5 to 9, the
last layer as it was initialised.

What they begin with is scored as the control `first dense`. Each seed has a network of its own,
pre-trained once for all its arms: what is shown is of such networks, not of one of them. They are
kept in .build/pretrained; delete that to have them trained anew.

    STUDY_DATA=data python benchmarks/studies/pretrained.py --seeds=10
"""

import functools
import pathlib
import random

import numpy as np
from mnist import lenet5, read
from study import Task, error, keras, main

from keras_dsd.utils.files import replace

KEPT = pathlib.Path(__file__).resolve().parents[2] / ".build" / "pretrained"
RATE = 0.02  # at 0.05 some seeds diverge on five digits
EPOCHS = 30


@functools.cache
def same_digits():
    return parts(2000, range(10))


@functools.cache
def digits_below_5():
    return parts(2500, range(5))


@functools.cache
def digits_from_5():
    return parts(200, range(5, 10))


def parts(num_images, digits):
    """Returns images of some digits, 2,000 to choose by, and of the test data all."""
    most = {"train": num_images, "validation": 2000, "test": None}
    found = {}
    for name, (x, y) in read(50_000).items():
        chosen = np.flatnonzero(np.isin(y, digits))[: most[name]]
        found[name] = x[chosen], y[chosen]
    return found


def trained(name, data, rate, new_layers=0):
    """Returns a LeNet-5, trained on data before or now, and compiled to go on at a rate.

    Its last `new_layers` are as they were initialised. Python's random numbers, which a seed
    begins, tell the network of one seed from another's.
    """
    number = random.randrange(10**9)
    model = lenet5()
    new = model.get_weights()[len(model.weights) - 2 * new_layers :]
    file = KEPT / f"{name}-{keras.backend.backend()}-{number}.npz"
    if not file.exists():
        train(model, *data()["train"])
        replace(file, lambda opened: np.savez(opened, *model.get_weights()))
    with np.load(file) as kept:
        old = [kept[f"arr_{index}"] for index in range(len(kept) - len(new))]
    model.set_weights([*old, *new])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), model.loss)
    return model


def train(model, x, y, batch_size=128):
    steps = EPOCHS * -(-len(x) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), model.loss)
    model.fit(x, y, batch_size=batch_size, epochs=EPOCHS, verbose=0)


TASKS = [
    Task(
        "pretrained-converged",
        f"MNIST, 2,000 images to train on, 2,000 to choose by, 10,000 to report on; LeNet-5 after "
        f"{EPOCHS} epochs on these images with a cosine from {RATE} to 0, for each seed anew; then "
        f"SGD at {RATE} with momentum 0.9",
        functools.partial(trained, "converged", same_digits, RATE), same_digits,
        error, "error, in percent", (0, 6, 6),
    ),
    Task(
        "pretrained-transfer",
        f"MNIST's digits 5 to 9, 200 images to train on, 2,000 to choose by, 4,861 to report on; "
        f"LeNet-5 after {EPOCHS} epochs on 2,500 images of 0 to 4, for each seed anew; then SGD at "
        f"{RATE / 2:g} with momentum 0.9, the last layer new",
        functools.partial(trained, "transfer", digits_below_5, RATE / 2, 1), digits_from_5,
        error, "error, in percent", (0, 10, 10), batch_size=20,
    ),
]  # fmt: skip

if __name__ == "__main__":
    main(TASKS)
