"""Trains NeuralTalk's LSTM to caption photographs, with DSD or plain training.

    python examples/caption.py --data=flickr8k --workdir=runs/caption
    python examples/caption.py --data=flickr8k --workdir=runs/caption --arm=dense

`--data` is a folder in the layout of Karpathy's Flickr-8K (recipes/caption_data.py); `fake` trains
on random numbers, as a smoke test. TF_USE_LEGACY_KERAS=1 selects tf_keras; the default is Keras 3
on $KERAS_BACKEND. The captions of the test images are scored by BLEU.
"""

import dataclasses
import functools
import pathlib

import tensorflow as tf
from absl import flags

from recipes import caption_data, caption_features, caption_models, captioning, running
from recipes.chosen_keras import keras

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(running)
flags.DEFINE_integer("hidden_size", 512, "Units of the LSTM, and size of both embeddings.", 1)
flags.DEFINE_float("dropout", 0.5, "Rate before the LSTM and after it.", 0, 1)
flags.DEFINE_integer("word_count_threshold", 5, "How often a word occurs, to be known.", 1)
flags.DEFINE_float("decay_rate", 0.999, "How slowly RMSprop forgets squared gradients.", 0, 1)
flags.DEFINE_float("grad_clip", 5.0, "The largest value of a gradient.", 0)
flags.DEFINE_integer("beam_size", 20, "Sentences of an image that beam search keeps.", 1)
flags.DEFINE_integer("max_words", 20, "Words of a caption at most.", 1)
flags.DEFINE_string("images", None, "Folder of the JPEGs; none: imgs/ in --data.")
flags.DEFINE_string("vgg_weights", "imagenet", "ImageNet's, where features are computed: imagenet "
                    "(downloaded), a file of them, or random: an untrained network.")  # fmt: skip

# NeuralTalk's own are the rate, the batch, decay, clipping, dropout, threshold and 20 words. Its
# sizes were 256; 512, chosen here for a network that is too large, makes 6,799,339 parameters with
# Flickr-8K's 2538 words: 2,097,664 embed the image, 1,299,968 words, 2,099,200 are the LSTM's, and
# 1,302,507 the decoder's. Epochs, learning rates and the sparsity are the paper's; it leaves the
# optimizer open, which is NeuralTalk's, and how the rate falls within a step: here it does not.
DEFAULTS = {
    "dense": "19",
    "sparse": "10@0.1",
    "redense": "6@0.01",
    "sparsity": 0.8,
    "learning_rate": 1e-2,
    "batch_size": 100,
}
# The paper prunes all matrices but W_s, which embeds words.
PRUNE = ("image_embedding/", "lstm/", "decoder/")
FLICKR8K_WORDS = 2538


def read_data() -> caption_data.Captions:
    """Returns the data that --data names, of random numbers if it is `fake`."""
    if running.is_fake():
        return caption_data.fake(FLICKR8K_WORDS)
    folder = pathlib.Path(FLAGS.data)
    splits = caption_data.read_images(folder)
    images = [image for split in splits.values() for image in split]
    if (folder / "vgg_feats.mat").exists():
        features = caption_data.read_features(folder / "vgg_feats.mat")
    else:
        pictures = pathlib.Path(FLAGS.images or folder / "imgs")
        features = caption_features.features_of(
            folder, images, pictures=pictures, weights=FLAGS.vgg_weights
        )
    caption_data.check_features(folder, features, images)
    return caption_data.Captions(features, **splits)


def batches(rows: tf.data.Dataset, features: tf.Tensor, **options) -> tf.data.Dataset:
    """Returns batches of (image, words), labels and weights; an image is looked up last."""
    return (
        rows.batch(FLAGS.batch_size, **options)
        .map(lambda image, words, *rest: ((tf.gather(features, image), words), *rest))
        .prefetch(tf.data.AUTOTUNE)
    )


def compile_model(model) -> None:
    """Compiles as NeuralTalk trains; it adds 1e-8 of squared weights, too little to matter."""
    optimizer = keras.optimizers.RMSprop(
        FLAGS.learning_rate, rho=FLAGS.decay_rate, epsilon=1e-8, clipvalue=FLAGS.grad_clip or None
    )
    # No metric is weighted; without this, tf_keras warns about sample weights.
    model.compile(optimizer, "sparse_categorical_crossentropy", weighted_metrics=[])


def evaluator(data: caption_data.Captions, vocabulary: list[str]):
    """Returns what scores a model by BLEU on the test images, and shows its first captions."""
    features = data.features[[image.number for image in data.test]]
    generator = functools.cache(  # made within the run, for its precision
        lambda: caption_models.Generator(len(vocabulary), FLAGS.hidden_size)
    )

    def evaluate(model) -> dict[str, float]:
        generator().load(model)
        written = captioning.write(
            generator(), features, vocabulary, beam_size=FLAGS.beam_size, max_words=FLAGS.max_words
        )
        for image, words in list(zip(data.test, written, strict=True))[:3]:
            print(f"{image.filename}: {' '.join(words)}")
        return captioning.bleu(written, [image.sentences for image in data.test])

    return evaluate


def train() -> None:
    running.use_defaults(DEFAULTS)
    data = read_data()
    vocabulary, bias = caption_data.vocabulary_of(data.train, FLAGS.word_count_threshold)
    length = caption_data.longest(data.train)
    with tf.device("CPU"):  # once, outside of what is traced for an epoch's batches
        features = tf.constant(data.features)
        pairs, held_out = (
            tf.data.Dataset.from_tensor_slices(
                dataclasses.astuple(caption_data.pairs_of(images, vocabulary, length))
            )
            for images in (data.train, data.validation)
        )
    print(f"{len(data.train)} images, {len(pairs)} sentences, {len(bias) - 1} words to know")
    caption_data.write_vocabulary(pathlib.Path(FLAGS.workdir), vocabulary)
    running.run(running.Recipe(
        name="neuraltalk",
        build=lambda: caption_models.build(
            bias, hidden_size=FLAGS.hidden_size, dropout=FLAGS.dropout
        ),
        compile=compile_model,
        train_batches=lambda seed: batches(
            pairs.shuffle(len(pairs), seed=seed), features, drop_remainder=True
        ),
        evaluate=evaluator(data, vocabulary),
        better=dict.fromkeys(["BLEU-4", "BLEU-3", "BLEU-2", "BLEU-1"], "max"),
        validation=batches(held_out, features),
        prune=PRUNE,
    ))  # fmt: skip


if __name__ == "__main__":
    running.main(train)
