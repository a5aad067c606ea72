"""Trains an ImageNet network of the DSD paper, with DSD or plain training.

    python examples/imagenet.py --model=resnet18 --data=/data/imagenet --workdir=/runs/resnet18
    python examples/imagenet.py ... --arm=dense     (and llr: the same low rates), for the table
    TF_USE_LEGACY_KERAS=1 python examples/imagenet.py ...      tf_keras; or KERAS_BACKEND=jax, torch

recipes/image_data.py says how ImageNet has to lie in the folder; `--data=fake` needs none.
"""

import tensorflow as tf
from absl import flags

import keras_dsd as dsd
from recipes import image_data, image_errors, image_models, image_pixels, running
from recipes.chosen_keras import keras

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(running)
flags.DEFINE_enum("model", "resnet18", sorted(image_models.NETWORKS), "Which network.")
flags.DEFINE_integer("image_size", 224, "Height and width of what it sees, in pixels.", 1)
flags.DEFINE_integer("num_classes", 0, "0: as many as folders; of TFRecords, fake data: 1000.", 0)
flags.DEFINE_float("weight_decay", None, "L2, as it stands in the gradient of kernels. Left out: "
                   "the network's own.", 0)  # fmt: skip
flags.DEFINE_float("dropout", None, "Share dropped, where there is dropout. As published.", 0, 0.99)
flags.DEFINE_float("width", None, "Channels of resnet18, as a share of those published.", 0.02, 8)
flags.DEFINE_integer("shuffle_buffer", 10_000, "Of TFRecords, images to draw the next one from.", 1)
flags.DEFINE_enum("augment", "standard", ["standard", "none"],
                  "Random parts, mirrored; none: what must not be, such as digits.")  # fmt: skip

# Of the networks of the paper: the epochs and first learning rates of each step are those of its
# table, and 30 % of every kernel but that of the first convolution is pruned. It leaves open the
# batch size, weight decay, and how the rate falls within a step: these are chosen here, and in
# the sparse and the last step the rate falls to a tenth half way. (One is left of the 1.25 epochs
# of VGG-16's sparse step.) AlexNet and SqueezeNet are of its authors' model page, which has
# SqueezeNet's 67 % and its 20 re-dense epochs at 1e-4; the rest is chosen here.
LATER = {"sparse": "15@0.1,15@0.01", "redense": "15@0.01,15@0.001", "sparsity": 0.3}
RESIDUAL = {"learning_rate": 0.1, "batch_size": 256, "weight_decay": 1e-4,
            "dense": "30,30@0.1,30@0.01", "sparse": "23@0.1,22@0.01",
            "redense": "23@0.01,22@0.001", "sparsity": 0.3}  # fmt: skip
DEFAULTS = {
    "alexnet": {"learning_rate": 0.01, "batch_size": 256, "weight_decay": 5e-4,
                "dense": "20,20@0.1,20@0.01,30@0.001", **LATER},
    "googlenet": {"learning_rate": 0.01, "batch_size": 32, "weight_decay": 2e-4,
                  "dense": "20,20@0.7,15@0.4,5@0.15", "sparse": "6@0.1,5@0.01",
                  "redense": "11@0.01,11@0.001", "sparsity": 0.3},
    "resnet18": RESIDUAL,
    "resnet50": RESIDUAL,
    "squeezenet": {"learning_rate": 0.04, "batch_size": 512, "weight_decay": 2e-4,
                   "dense": "17,17@0.7,17@0.4,17@0.1", "sparse": "20@0.025", "sparsity": 0.67,
                   "redense": "20@0.0025"},
    "vgg16": {"learning_rate": 0.01, "batch_size": 256, "weight_decay": 5e-4,
              "dense": "25,25@0.1,24@0.01", "sparse": "1@0.01", "redense": "9@0.001,9@0.0001",
              "sparsity": 0.3},
}  # fmt: skip
# What keras.applications calls the way values are scaled: Torch's for ResNet-18, else Caffe's.
MODES = dict.fromkeys(DEFAULTS, "caffe") | {"resnet18": "torch"}


def compile_model(model):
    model.compile(
        keras.optimizers.SGD(FLAGS.learning_rate, momentum=0.9), "sparse_categorical_crossentropy",
        metrics=image_errors.metrics(model.output_shape[-1]),
    )  # fmt: skip


def train():
    running.use_defaults(DEFAULTS[FLAGS.model])
    if running.is_fake():
        images = image_data.fake(FLAGS.num_classes or 1000, 2 * FLAGS.batch_size)
    else:
        images = image_data.find(
            FLAGS.data, FLAGS.num_classes, FLAGS.shuffle_buffer, FLAGS.batch_size
        )
    print(f"{images.num_classes} classes, {images.train(0).cardinality():,} training images, "
          f"{images.validation.cardinality():,} to validate with")  # fmt: skip
    pixels = image_pixels.Pixels(FLAGS.image_size, FLAGS.augment, MODES[FLAGS.model])
    validation = pixels.validation_batches(images.validation, FLAGS.batch_size)
    recipe = running.Recipe(
        name=FLAGS.model,
        build=lambda: image_models.build(
            FLAGS.model, FLAGS.image_size, images.num_classes, FLAGS.weight_decay,
            FLAGS.dropout, FLAGS.width,
        ),
        compile=compile_model,
        train_batches=lambda seed: pixels.train_batches(images.train(seed), seed, FLAGS.batch_size),
        evaluate=lambda model: image_errors.errors(model, validation),
        better=dict.fromkeys(image_errors.names(images.num_classes), "min"),
        validation=validation,
        exclude=dsd.exclusions.first_conv,
    )  # fmt: skip
    try:
        running.run(recipe)
    except tf.errors.InvalidArgumentError:
        image_data.check_decodable(FLAGS.data)  # TensorFlow does not say which image it was
        raise


if __name__ == "__main__":
    running.main(train)
