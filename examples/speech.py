"""Trains DeepSpeech or Deep Speech 2 by Dense-Sparse-Dense training, as the DSD paper did.

    python examples/speech.py --model=deepspeech --data=/data/wsj --workdir=runs/deepspeech
    python examples/speech.py ... --arm=llr     (and dense: plain training), for the table
    TF_USE_LEGACY_KERAS=1 python examples/speech.py ...     tf_keras; or KERAS_BACKEND=jax, torch

--data has train.jsonl, validation.jsonl and test.jsonl; docs/recipes.md says more.
"""

import functools
import pathlib
from typing import Any

import tensorflow as tf
from absl import flags

from recipes import problems, running, speech_batches, speech_data, speech_models, transcribing
from recipes.chosen_keras import keras

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(running)
flags.DEFINE_enum("model", "deepspeech", ["deepspeech", "deepspeech2"], "What to train.")
flags.DEFINE_enum(
    "size", "full", ["full", "small"], "Of the network: as published, or for a trial."
)
flags.DEFINE_integer("width", None, "Units of each layer, if not those of --size.", 1)
flags.DEFINE_integer("bands", 0, "Mel bands of the spectrogram; 0: all 161 frequencies.", 0)
flags.DEFINE_integer("stride", 2, "Frames of 10 ms from one that is looked at to the next.", 1)
flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "SGD has Nesterov's momentum.")
flags.DEFINE_float("momentum", 0.99, "Of SGD.", 0, 1)
flags.DEFINE_float("clip_norm", 400.0, "Longest gradient, of all weights together; 0: any.", 0)
flags.DEFINE_enum("decoder", "greedy", ["greedy", "beam"], "How letters are found for error rates.")
flags.DEFINE_integer("beam_width", 100, "Beginnings that the beam search keeps.", 1)
flags.DEFINE_list("test", ["test"], "Manifests to measure error rates on, such as eval92,dev93.")
flags.DEFINE_bool("cache", False, "Keep all spectrograms in memory: 64 kB a second, less in bands.")

# Of the DSD paper: epochs and learning rates of each step, half of the weights pruned in the first
# round and a quarter in the second, Nesterov's momentum. It leaves open how the rate falls within a
# step (here it does not), the batch, momentum and clipping: these are chosen here.
SPARSITIES = {"sparsity": 0.5, "sparsity2": 0.25, "batch_size": 32}
DEFAULTS = {
    "deepspeech": {
        **SPARSITIES, "learning_rate": 8e-4, "dense": "50", "sparse": "50@0.625",
        "redense": "50@0.375", "sparse2": "50@0.125", "redense2": "50@0.0375",
    },
    "deepspeech2": {
        **SPARSITIES, "learning_rate": 3e-4, "dense": "20", "sparse": "20", "redense": "20@0.1",
        "sparse2": "20@0.1", "redense2": "20@0.02",
    },
}  # fmt: skip
# "full" has the layers of the DSD paper's tables, weight by weight, but for the last one of Deep
# Speech 2: the paper's 95,054 give no whole number of outputs, and 29 of them are 51,069.
MODELS = {
    ("deepspeech", "full"): (speech_models.deepspeech, {"width": 1024}),
    ("deepspeech", "small"): (speech_models.deepspeech, {"width": 128}),
    ("deepspeech2", "full"): (speech_models.deepspeech2, {"width": 1760}),
    ("deepspeech2", "small"): (speech_models.deepspeech2, {"width": 128, "num_recurrent": 2}),
}
# What the paper prunes: the fully connected and the recurrent layers. Neither the convolutions nor
# the few weights of the letters' scores.
PRUNE = ("hidden", "recurrent")


def build() -> Any:
    make, options = MODELS[FLAGS.model, FLAGS.size]
    width = {"width": FLAGS.width} if FLAGS.width else {}
    return make(num_bins=num_bins(), stride=FLAGS.stride, **{**options, **width})


def num_bins() -> int:
    return FLAGS.bands or speech_data.NUM_BINS


def compile_it(model: Any) -> None:
    rate, clip = FLAGS.learning_rate, FLAGS.clip_norm
    if FLAGS.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=clip)
    else:
        optimizer = keras.optimizers.SGD(rate, FLAGS.momentum, nesterov=True, global_clipnorm=clip)
    # XLA would compile a step for each length; on JAX it has to.
    jit_compile = "auto" if keras.backend.backend() == "jax" else False
    model.compile(optimizer, transcribing.ctc_loss, jit_compile=jit_compile)


def read_split(name: str, for_loss: bool = False) -> speech_batches.Split:
    """Returns the utterances of a manifest, or those that CTC's loss is finite of."""
    if running.is_fake():
        lengths, most_letters, read = [60] * 2 * FLAGS.batch_size, 5, _as_it_is
        rows = speech_batches.fake(len(lengths), num_bins(), lengths[0], most_letters)
    else:
        utterances = speech_data.read_manifest(pathlib.Path(FLAGS.data, f"{name}.jsonl"))
        if for_loss:
            utterances = long_enough(utterances, name)
        lengths = [utterance.num_frames for utterance in utterances]
        most_letters = max(len(utterance.letters) for utterance in utterances)
        rows = speech_batches.rows_of(utterances)
        read = functools.partial(speech_batches.read, num_bands=FLAGS.bands)
    if FLAGS.cache:
        rows, read = read(rows).cache(), _as_it_is
    sizes = lengths, most_letters, FLAGS.batch_size, FLAGS.stride
    return speech_batches.Split(rows, read, *sizes)


def long_enough(utterances: list[speech_data.Utterance], name: str) -> list[speech_data.Utterance]:
    """Returns the utterances that have frames enough for their letters, and says if some have not.

    Raises:
        MissingData: There is none, or of training data no whole batch.
    """
    kept = speech_batches.alignable(utterances, FLAGS.stride)
    if len(kept) < len(utterances):
        print(
            f"{name}.jsonl: {len(utterances) - len(kept)} of {len(utterances)} utterances have "
            f"fewer frames than their text needs at --stride={FLAGS.stride}; they are left out."
        )
    least = FLAGS.batch_size if name == "train" else 1
    if len(kept) < least:
        raise problems.MissingData(
            f"Expected {least} utterances at least, a batch. Received: {len(kept)} in "
            f"{name}.jsonl. Give a smaller --batch_size or --stride, or more data."
        )
    return kept


def _as_it_is(rows: tf.data.Dataset) -> tf.data.Dataset:
    return rows


def evaluate(model: Any, tests: dict[str, tf.data.Dataset]) -> dict[str, float]:
    """Returns error rates on each test, in percent."""
    beam_width = FLAGS.beam_width if FLAGS.decoder == "beam" else 0
    rates = {}
    for name, batches in tests.items():
        spoken: list[str] = []
        heard: list[str] = []
        # JAX takes no tensors of TensorFlow's.
        for spectrograms, packed in batches.as_numpy_iterator():
            num_frames, texts = transcribing.unpack(packed)
            logits = model.predict(spectrograms, FLAGS.batch_size, verbose=0)
            heard += transcribing.transcribe(logits, num_frames, beam_width)
            spoken += texts
        for rate, value in transcribing.error_rates(spoken, heard).items():
            rates[column(rate, name)] = value
    return rates


def column(rate: str, test: str) -> str:
    return rate if len(FLAGS.test) == 1 else f"{rate} of {test}"


def main() -> None:
    running.use_defaults(DEFAULTS[FLAGS.model])
    train = read_split("train", for_loss=True)
    tests = {name: read_split(name).in_order() for name in FLAGS.test}
    running.run(running.Recipe(
        name=FLAGS.model,
        build=build,
        compile=compile_it,
        train_batches=train.shuffled,
        evaluate=functools.partial(evaluate, tests=tests),
        better={column(rate, test): "min" for rate in ("WER", "CER") for test in FLAGS.test},
        validation=read_split("validation", for_loss=True).in_order(),
        prune=PRUNE,
    ))  # fmt: skip


if __name__ == "__main__":
    running.main(main)
