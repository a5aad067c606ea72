"""Dense-Sparse-Dense training in a custom training loop, without `fit`, on scikit-learn's digits.

One function for each backend creates the training step: a GradientTape, a stateless function, or
`backward` of PyTorch. The loop around it is the same for all.

    KERAS_BACKEND=torch python examples/custom_loop.py --keras=3
"""

import importlib

import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

import keras_dsd as dsd

FLAGS = flags.FLAGS
flags.DEFINE_enum("keras", "3", ["2", "3"], "2: tf_keras. 3: Keras 3, on $KERAS_BACKEND.")
flags.DEFINE_float("sparsity", 0.5, "Fraction of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("epochs", 5, "Epochs of each of the three phases.")
flags.DEFINE_integer("batch_size", 64, "Images in a batch.")
flags.DEFINE_integer("seed", 0, "Seed of the weights.")


def train_with_tape(model, optimizer, loss_of, loop):
    """TensorFlow: the variables are the state, and the masks follow the compiled step."""
    import tensorflow as tf

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    def train(batches):
        for x, y in batches:
            step(x, y)
            loop.apply_masks()

    return train


def train_with_torch(model, optimizer, loss_of, loop):
    """PyTorch: the optimizer is one of Keras or of torch.optim."""
    import torch

    def train(batches):
        for x, y in batches:
            model.zero_grad()
            loss_of(torch.from_numpy(y), model(torch.from_numpy(x), training=True)).backward()
            if isinstance(optimizer, torch.optim.Optimizer):
                optimizer.step()
            else:
                variables = model.trainable_variables
                with torch.no_grad():
                    optimizer.apply([v.value.grad for v in variables], variables)
            loop.apply_masks()

    return train


def train_without_state(model, optimizer, loss_of, loop):
    """JAX: the masks are arguments of the step, and the variables hold its state between calls."""
    import jax

    optimizer.build(model.trainable_variables)
    state_of = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)

    def loss_and_rest(trainable, rest, x, y):
        predicted, rest = model.stateless_call(trainable, rest, x, training=True)
        return loss_of(y, predicted), rest

    gradients_of = jax.value_and_grad(loss_and_rest, has_aux=True)

    def masked(values, masks):
        pairs = zip(values, masks, strict=True)
        return [v if mask is None else jax.numpy.where(mask, v, 0) for v, mask in pairs]

    @jax.jit
    def step(state, masks, x, y):
        trainable, rest, slots = state
        (_, rest), gradients = gradients_of(trainable, rest, x, y)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        # Including the variables of the optimizer, which hold moving averages with use_ema.
        return masked(trainable, masks[0]), rest, masked(slots, masks[1])

    def train(batches):
        state = tuple([variable.value for variable in variables] for variables in state_of)
        masks = loop.masks(), loop.masks(optimizer.variables)
        for x, y in batches:
            state = step(state, masks, x, y)
        for variables, values in zip(state_of, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    return train


MAKERS = {"tensorflow": train_with_tape, "torch": train_with_torch, "jax": train_without_state}


def main(argv):
    del argv
    keras = importlib.import_module("tf_keras" if FLAGS.keras == "2" else "keras")
    images, labels = load_digits(return_X_y=True)
    images, size = (images / 16).astype("float32"), FLAGS.batch_size
    cuts = range(0, 1200, size)
    batches = [(images[:1200][cut : cut + size], labels[:1200][cut : cut + size]) for cut in cuts]
    keras.utils.set_random_seed(FLAGS.seed)
    layers = keras.layers
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    model = keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(10)])
    optimizer = keras.optimizers.Adam()
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    model = dsd.apply(model, sparsity=FLAGS.sparsity)
    schedule = dsd.DSDSchedule(FLAGS.epochs, FLAGS.epochs, FLAGS.epochs)
    with dsd.DSDLoop(model, optimizer, schedule) as loop:
        train = MAKERS[keras.backend.backend()](model, optimizer, loss_of, loop)
        for epoch in range(3 * FLAGS.epochs):
            loop.begin_epoch(epoch)
            train(batches)
            said = loop.end_epoch()
            wrong = np.argmax(model.predict(images[1200:], verbose=0), axis=1) != labels[1200:]
            print(f"epoch {epoch + 1:2d}, phase {said['dsd_phase']}: sparsity "
                  f"{said['dsd_sparsity']:.2%}, test error {wrong.mean():.2%}")  # fmt: skip
    dsd.strip(model)


if __name__ == "__main__":
    app.run(main)
