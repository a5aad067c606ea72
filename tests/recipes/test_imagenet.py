"""The networks of examples/imagenet.py, and its training, evaluated as published: on small data."""

import itertools
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from recipes import image_data, image_errors, image_models, image_pixels
from tests.helpers.paths import PATH, keras
from tests.helpers.programs_of_recipes import EXAMPLES, ROOT, result_of, run, start

IMAGENET = EXAMPLES / "imagenet.py"
TWO_DEVICES = ROOT / "tests" / "helpers" / "imagenet_on_two_devices.py"
# All parameters, and those that train: BatchNormalization's averages do not.
PUBLISHED = {
    "alexnet": (60_965_224, 60_965_224),
    "googlenet": (6_998_552, 6_998_552),
    "resnet18": (11_689_512 + 9_600, 11_689_512),
    "resnet50": (25_636_712, 25_636_712 - 53_120),
    "squeezenet": (1_248_424, 1_248_424),
    "vgg16": (138_357_544, 138_357_544),
}
# Of ResNets: the layers that they are named after, and projections.
KERNELS = {
    "alexnet": 8, "googlenet": 57 + 1, "resnet18": 17 + 1 + 3, "resnet50": 49 + 1 + 4,
    "squeezenet": 26, "vgg16": 16,
}  # fmt: skip
DROPOUT = {"alexnet": [0.5] * 2, "googlenet": [0.4], "squeezenet": [0.5], "vgg16": [0.5] * 2}


def size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves weights zero: to draw those of VGG-16 takes seconds."""
    zeros = keras.initializers.Zeros()
    for drawn in ("VarianceScaling", "RandomNormal"):
        monkeypatch.setattr(
            getattr(keras.initializers, drawn), "__call__",
            lambda self, shape, dtype=None, **_: zeros(shape, dtype=dtype),
        )  # fmt: skip


def dropouts(model):
    return [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_dropout_are_as_published(name, undrawn):
    model = image_models.build(name, 224, 1000, weight_decay=1e-4)
    assert (model.count_params(), size(model.trainable_weights)) == PUBLISHED[name]
    assert model.output_shape == (None, 1000)
    assert len([w for w in model.trainable_weights if len(w.shape) > 1]) == KERNELS[name]
    assert dropouts(model) == DROPOUT.get(name, [])


def test_the_page_has_these_counts_and_what_the_13_million_of_googlenet_are():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, (_, trained) in PUBLISHED.items():
        assert f"| `{name}` | {KERNELS[name]} | {trained:,} |" in page
    sizes = (4 * 4 * 128, 1024, 1000)  # of an auxiliary classifier, after 128 channels of 4 x 4
    dense = sum(n * m + m for n, m in itertools.pairwise(sizes))
    auxiliary = sum(channels * 128 + 128 + dense for channels in (512, 528))
    assert f"{PUBLISHED['googlenet'][1] + auxiliary:,}" in page


def small(name, **options):
    options = {"image_size": 64, "num_classes": 7, "weight_decay": 0.01} | options
    return image_models.build(name, **options)


@pytest.mark.parametrize("name", ["googlenet", "resnet18"])
def test_only_kernels_decay_and_by_the_configured_amount(name):
    model = small(name)
    kernels = [np.array(w) for w in model.trainable_weights if len(w.shape) > 1]
    assert len(model.losses) == len(kernels) == {"googlenet": 58, "resnet18": 21}[name]
    # Its gradient is the kernel times 0.01.
    np.testing.assert_allclose(
        float(sum(model.losses)), sum(0.005 * (k**2).sum() for k in kernels), rtol=1e-5
    )


def test_dropout_is_as_configured():
    assert dropouts(small("squeezenet", dropout=0.1)) == [0.1]


@pytest.mark.parametrize(
    ("name", "option"), [("resnet50", "dropout"), ("resnet18", "dropout"), ("vgg16", "width")]
)
def test_an_option_that_a_network_has_not(name, option):
    with pytest.raises(
        ValueError, match=f"Expected no --{option} for {name}.*Received: --{option}=0.5"
    ):
        small(name, **{option: 0.5})


def test_a_narrow_resnet18():
    widths = [w.shape[-1] for w in small("resnet18", width=0.125).weights if len(w.shape) == 4]
    assert sorted(set(widths)) == [8, 16, 32, 64]


def test_local_response_normalisation_is_tensorflows():
    x = np.random.default_rng(0).normal(0, 300, (2, 3, 3, 9)).astype("float32")
    theirs = tf.nn.local_response_normalization(x, 2, 1.0, 1e-4 / 5, 0.75)
    np.testing.assert_allclose(
        np.array(image_models.LocalResponseNormalization()(x)), theirs, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["googlenet", "squeezenet"])
def test_half_precision_ends_in_whole(name):
    before = (
        keras.mixed_precision.global_policy() if PATH == "tf_keras" else keras.config.dtype_policy()
    )
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = small(name)
    finally:
        keras.mixed_precision.set_global_policy(before)
    scores = model(np.zeros((2, 64, 64, 3), "float32"))
    assert np.array(scores).dtype == np.float32
    np.testing.assert_allclose(np.array(scores).sum(axis=1), 1, rtol=1e-6)
    convolution = next(x for x in model.layers if isinstance(x, keras.layers.Conv2D))
    assert convolution.compute_dtype == "bfloat16"


def test_errors_count_every_image_once():
    # The scores of 7 classes are given as an image would be; the batches are of 4, 4 and 2.
    scores = np.random.default_rng(0).random((10, 7)).astype("float32")
    labels = np.arange(10) % 7
    model = keras.Sequential([keras.layers.Input((7,)), keras.layers.Softmax()])
    model.compile(loss="sparse_categorical_crossentropy", metrics=image_errors.metrics(7))
    batches = tf.data.Dataset.from_tensor_slices((scores, labels)).batch(4)
    better = (scores > scores[np.arange(10), labels][:, None]).sum(axis=1)
    found = image_errors.errors(model, batches)
    assert found == pytest.approx(
        {"top-1 error": 10 * (better >= 1).sum(), "top-5 error": 10 * (better >= 5).sum()}, abs=1e-3
    )
    assert 0 < found["top-5 error"] < found["top-1 error"] < 100


def test_of_five_classes_the_best_five_are_not_counted():
    assert [image_errors.names(n) for n in (5, 6)] == [
        ["top-1 error"], ["top-1 error", "top-5 error"]
    ]  # fmt: skip
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Softmax()])
    model.compile(loss="sparse_categorical_crossentropy", metrics=image_errors.metrics(5))
    batches = tf.data.Dataset.from_tensor_slices((np.eye(5), np.arange(5))).batch(5)
    assert image_errors.errors(model, batches) == {"top-1 error": 0}


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_weights_of_keras_applications_fit(name, tmp_path):
    application = {"resnet50": "ResNet50", "vgg16": "VGG16"}[name]
    theirs = getattr(keras.applications, application)(
        weights=None, input_shape=(32, 32, 3), classes=7
    )
    theirs.save_weights(tmp_path / "x.weights.h5")
    ours = small(name, image_size=32)
    ours.load_weights(tmp_path / "x.weights.h5")
    images = np.random.default_rng(0).normal(0, 50, (3, 32, 32, 3)).astype("float32")
    expected = theirs.predict(images, verbose=0)
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-6)


ONCE = ["--dense=1", "--sparse=1", "--redense=1", "--steps_per_epoch=1", "--batch_size=2"]


NARROW_PROGRAM = ROOT / "tests" / "helpers" / "narrow_imagenet.py"


def check_phases(said, folder, name):
    assert {line[:11] for line in said.splitlines()} == {"FAKE DATA: "}
    sparsity = {part: found["sparsity"] for part, found in result_of(folder)["parts"].items()}
    assert list(sparsity) == ["dense", "sparse", "re-dense"]
    assert sparsity["dense"] < 0.001
    assert sparsity["sparse"] == pytest.approx(0.67 if name == "squeezenet" else 0.3, abs=1e-4)
    assert sparsity["re-dense"] < sparsity["sparse"]


@pytest.mark.slow
@pytest.mark.only_on("tf_keras")
@pytest.mark.parametrize(
    "name",
    [n if n == "squeezenet" else pytest.param(n, marks=pytest.mark.exhaustive) for n in PUBLISHED],
)
def test_each_network_goes_through_all_phases(name, tmp_path):
    said = run(IMAGENET, tmp_path, f"--model={name}", "--data=fake", *ONCE)
    assert result_of(tmp_path)["parameters"] == PUBLISHED[name][1]
    check_phases(said, tmp_path, name)
    shutil.rmtree(tmp_path)  # gigabytes, of which pytest would keep those of several runs


def check_narrow(name, folder, **variables):
    flags = [f"--model={name}", "--image_size=64", "--data=fake", *ONCE]
    check_phases(run(NARROW_PROGRAM, folder, *flags, **variables), folder, name)
    assert result_of(folder)["parameters"] < PUBLISHED[name][1] / 8


@pytest.mark.slow
@pytest.mark.only_on("tf_keras")
@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_the_largest_do_so_where_they_are_narrow(name, tmp_path):
    check_narrow(name, tmp_path)


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("name", ["googlenet", "resnet50"])
def test_the_deepest_do_so_on_pytorch(name, tmp_path):
    """TensorFlow takes minutes to trace them."""
    pytest.importorskip("torch")
    check_narrow(name, tmp_path, KERAS_BACKEND="torch")


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_jax_trains(tmp_path):
    pytest.importorskip("jax")
    check_narrow("alexnet", tmp_path, KERAS_BACKEND="jax")


NARROW = ["--model=resnet18", "--width=0.125", "--image_size=64", "--num_classes=12"]


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("flag", ["--dropout=0.5", "--data=nowhere"])
def test_errors_are_one_line(flag, tmp_path):
    done = start(IMAGENET, f"--workdir={tmp_path}", "--model=resnet18", "--data=fake", *ONCE, flag)
    assert done.returncode == 1
    assert f"Received: {flag}" in done.stdout + done.stderr
    assert not list(tmp_path.rglob("model.keras"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The small data, in both layouts."""
    pytest.importorskip("PIL.Image", reason="needs pillow: make recipes")
    folder = tmp_path_factory.mktemp("data")
    writer = EXAMPLES / "small_data" / "images.py"
    subprocess.run([sys.executable, str(writer), str(folder)], check=True)
    return folder


FEW = ["--steps_per_epoch=5", "--batch_size=16", "--dense=1", "--sparse=1", "--redense=1@0.1"]


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_half_precision(tmp_path):
    half = "--mixed_precision=mixed_bfloat16"
    run(IMAGENET, tmp_path, *NARROW, *ONCE, half, "--data=fake")
    parts = result_of(tmp_path)["parts"]
    assert parts["sparse"]["sparsity"] == pytest.approx(0.3, abs=1e-3)
    assert parts["re-dense"]["sparsity"] < 0.1


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_two_devices_count_every_image_once(data, tmp_path):
    # 600 validation images end in a batch of 8, which leaves none to the second device: oneDNN's
    # convolutions have it in the wrong shape then.
    flags = [*NARROW, *FEW, f"--data={data / 'tfrecords'}"]
    said = run(TWO_DEVICES, tmp_path, *flags, TF_ENABLE_ONEDNN_OPTS="0")
    assert "Training on 2 devices." in said
    parts = result_of(tmp_path)["parts"]
    assert parts["sparse"]["sparsity"] == pytest.approx(0.3, abs=1e-3)
    wrong = [6 * error for part in parts.values() for error in part["metrics"].values()]
    np.testing.assert_allclose(wrong, np.round(wrong), atol=1e-3)


SMALL = f"--flagfile={EXAMPLES / 'small_data' / 'images.flags'}"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a real training."""
    folder = tmp_path_factory.mktemp("trained")
    run(IMAGENET, folder, SMALL, f"--data={data / 'tfrecords'}")
    return folder


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_it_learns_what_small_images_show(trained):
    parts = result_of(trained)["parts"]
    assert [part["epoch"] for part in parts.values()] == [8, 10, 12]
    assert parts["re-dense"]["metrics"]["top-1 error"] < 8
    assert parts["re-dense"]["metrics"]["top-5 error"] < 2
    assert parts["sparse"]["sparsity"] == pytest.approx(0.3, abs=1e-3)
    assert parts["re-dense"]["sparsity"] < 0.01


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_what_was_exported_makes_the_errors_that_were_measured(trained, data):
    served = tf.saved_model.load(str(trained / "seed-0" / "dsd" / "saved_model"))
    # From the other layout: the same images.
    images = image_data.find(str(data / "folders"), 0, 1, 1).validation
    batches = image_pixels.Pixels(64, "none", "torch").validation_batches(images, 100)
    scores, labels = zip(*[(served.serve(x).numpy(), y.numpy()) for x, y in batches], strict=True)
    ranks = np.argsort(-np.concatenate(scores), axis=1)
    found = ranks == np.concatenate(labels)[:, None]
    assert len(found) == 600
    errors = result_of(trained)["parts"]["re-dense"]["metrics"]
    # A close call may go either way in batches of another size.
    assert 100 * (1 - found[:, :1].sum() / 600) == pytest.approx(errors["top-1 error"], abs=0.2)
    assert 100 * (1 - found[:, :5].sum() / 600) == pytest.approx(errors["top-5 error"], abs=0.2)
