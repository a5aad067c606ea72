"""Shared parts of the recipes: flags, devices, resuming, evaluation, export, the table."""

import contextlib
import dataclasses
import io
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import app, flags, logging

import keras_dsd as dsd
from recipes import arms, results
from recipes.chosen_keras import IS_LEGACY, keras
from recipes.epochs import Epoch, every_epoch, number_of
from recipes.marked_lines import marked_lines
from recipes.part_ends import PartEnds
from recipes.problems import ProblemError

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data", None, "Folder with the data; `fake`: random ones, for a smoke test.", required=True
)
flags.DEFINE_string(
    "workdir", None, "Folder for all that a run writes; the arms share one.", required=True
)
flags.DEFINE_enum("arm", "dsd", arms.ARMS, "DSD; plain training; plain, at DSD's learning rates.")
# Flags with defaults of each recipe, in its DEFAULTS.
_OWN = " Left out: the recipe's own."
_EPOCHS = "Epochs of {}, steps with a factor of the learning rate: 30,30@0.1; 0: none." + _OWN
_STEPS = {
    "dense": "the first, dense phase", "sparse": "the sparse phase",
    "redense": "the dense phase after it", "sparse2": "a second sparse phase",
    "redense2": "the dense phase after that",
}  # fmt: skip
for _name, _phase in _STEPS.items():
    flags.DEFINE_string(_name, None, _EPOCHS.format(_phase))
flags.DEFINE_float("sparsity", None, "Fraction of each weight to prune, in [0, 1)." + _OWN, 0)
flags.DEFINE_float("sparsity2", None, "Of the second sparse phase." + _OWN, 0)
flags.DEFINE_float(
    "learning_rate", None, "Initial learning rate, which the factors multiply." + _OWN, 0
)
flags.DEFINE_integer("batch_size", None, "Examples, on all devices together." + _OWN, 1)
flags.DEFINE_integer("seed", 0, "Seed of the weights, the order of examples, augmentation.", 0)
flags.DEFINE_enum("mixed_precision", "", ["", "mixed_float16", "mixed_bfloat16"],
                  "Keras's policy; none: float32.")  # fmt: skip
flags.DEFINE_string("initial_weights", None, "A file to start from; with --dense=0 no more.")
flags.DEFINE_integer("steps_per_epoch", 0, "Batches an epoch ends after; 0: when all were seen.", 0)
flags.DEFINE_bool("deterministic", False, "Sums in one order, on TensorFlow, at the cost of time: "
                  "arms and resumed runs are then equal to the bit.")  # fmt: skip
flags.DEFINE_enum("verbose", "2", ["0", "1", "2"], "Output of fit: none, a bar, a line.")
_WHERE = ("arm", "seed", "workdir", "verbose")
_NONE = {"sparse2": "0", "redense2": "0", "sparsity2": 0.0}  # where a recipe says nothing of them


@flags.multi_flags_validator(list(_STEPS))
def _read_as_steps(values: Mapping[str, str | None]) -> bool:
    try:
        for text in values.values():
            arms.parse(text or "0")
        return True
    except ValueError as error:
        raise flags.ValidationError(str(error)) from error


@flags.multi_flags_validator(["sparsity", "sparsity2"], "it is a share, in [0, 1)")
def _are_shares(values: Mapping[str, float | None]) -> bool:
    return all(value is None or value < 1 for value in values.values())


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Parts that differ between systems.

    Args:
        name: Its name in the table.
        build: Returns a new model, not compiled.
        compile: Compiles it.
        train_batches: Returns one epoch's batches in an order, and with augmentation, that follow
            from the seed alone, a scalar int64 tensor: a resumed run reads the same.
        evaluate: Returns the numbers of the table, in percent.
        better: `"min"` or `"max"` for each of them; the one that counts comes first.
        validation: Validation data of `fit`.
        prune: Regular expressions of the paths of weights to prune; all others stay dense.
        exclude: Takes the model, and returns regular expressions of weights that stay dense too.
    """

    name: str
    build: Callable[[], Any]
    compile: Callable[[Any], None]
    train_batches: Callable[[tf.Tensor], tf.data.Dataset]
    evaluate: Callable[[Any], dict[str, float]]
    better: Mapping[str, str]
    validation: tf.data.Dataset | None = None
    prune: tuple[str, ...] = ("",)
    exclude: Callable[[Any], Sequence[str]] = lambda model: ()


def use_defaults(defaults: Mapping[str, Any]) -> None:
    """Sets flags that were not given."""
    for name, value in {**_NONE, **defaults}.items():
        FLAGS.set_default(name, value)


def is_fake() -> bool:
    """Returns whether the data are random."""
    return FLAGS.data == "fake"


def main(train: Callable[[], None]) -> None:
    """Parses the flags and calls `train`; errors of flags or data are shown as a line."""

    def run_it(argv: list[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"Expected flags alone. Received: {argv[1:]}.")
        logging.set_verbosity(logging.WARNING)  # TensorFlow logs every file that it writes
        with marked_lines("FAKE DATA: ") if is_fake() else contextlib.nullcontext():
            try:
                train()
            except ProblemError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print("Interrupted. The same command resumes the run.", file=sys.stderr)
                return 130
        return 0

    app.run(run_it)


def run(recipe: Recipe) -> None:
    """Trains or resumes the selected arm, and prints the table of all arms."""
    parts = _parts()
    folder = pathlib.Path(FLAGS.workdir, f"seed-{FLAGS.seed}", FLAGS.arm)
    if recipe.validation is not None:
        number_of(recipe.validation)
    settings = {"recipe": recipe.name, **_settings()}
    results.check_alike(folder.parents[1], settings)
    record = results.Record(folder / "results.json", settings)
    if not record.result["is_complete"]:
        _train(recipe, parts, folder, record)
    table = results.Table(results.complete_in(folder.parents[1]), recipe.better)
    text = f"{recipe.name}, in percent{', on FAKE DATA' * is_fake()}:\n\n{table.to_markdown()}\n"
    print(f"\n{text}")
    (folder.parents[1] / "results.md").write_text(text)
    (folder.parents[1] / "results.json").write_text(json.dumps(table.to_dict(), indent=1) + "\n")


def _train(
    recipe: Recipe, parts: list[arms.Part], folder: pathlib.Path, record: results.Record
) -> None:
    schedule = dsd.DSDSchedule(
        phases=[phase for part in parts for phase in part.phases],
        observers=[dsd.DSDTensorBoard(folder / "logs")],
    )
    if FLAGS.mixed_precision:
        keras.mixed_precision.set_global_policy(FLAGS.mixed_precision)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = _strategy()
    with strategy.scope() if strategy else contextlib.nullcontext():
        # Not 0: beside a seed of TensorFlow's that is 0, tf.data takes no tensor for one.
        keras.utils.set_random_seed(FLAGS.seed + 1)
        model = recipe.build()
        if FLAGS.initial_weights:
            _load(model)
        sparsity = dict.fromkeys(recipe.prune, FLAGS.sparsity)
        model = dsd.apply(model, sparsity, exclude=recipe.exclude(model))
        recipe.compile(model)
    record.set(parameters=_num_parameters(model), to_prune=dsd.report(model).size)
    print(f"{recipe.name}, arm {FLAGS.arm}: {schedule.timeline}")
    print(f"{record.result['parameters']:,} parameters, {record.result['to_prune']:,} to prune")
    if parts[0].name != "dense" and "start" not in record.result["parts"]:
        record.end_part("start", epoch=0, sparsity=0.0, metrics=recipe.evaluate(model))
    epoch = Epoch(FLAGS.seed)
    backup = keras.callbacks.BackupAndRestore(
        folder / "backup",
        delete_checkpoint=False,
        **({} if IS_LEGACY else {"double_checkpoint": True}),
    )
    if (folder / "backup").exists():
        print(f"Resuming from {folder / 'backup'}")
    # The end of a part is on record before the backup has its last epoch behind it.
    ends = PartEnds(parts, recipe.evaluate, record)
    model.fit(
        every_epoch(recipe.train_batches, epoch, FLAGS.steps_per_epoch),
        validation_data=recipe.validation, epochs=schedule.timeline.epochs, shuffle=False,
        verbose=int(FLAGS.verbose), callbacks=[epoch, ends, backup, schedule, *_logs(folder)],
    )  # fmt: skip
    _export(dsd.strip(model), folder)
    record.set(is_complete=True)


def _parts() -> list[arms.Part]:
    given = {name: arms.parse(FLAGS[name].value) for name in _STEPS}
    parts = arms.parts_of(
        FLAGS.arm, given["dense"],
        [(given["sparse"], FLAGS.sparsity), (given["sparse2"], FLAGS.sparsity2)],
        [given["redense"], given["redense2"]],
    )  # fmt: skip
    if not given["sparse"]:
        raise ProblemError(
            "Expected a sparse phase; without one all arms are the same. Received: --sparse=0. "
            "Give its epochs."
        )
    if not given["dense"] and not FLAGS.initial_weights:
        raise ProblemError(
            "Expected a trained model to prune where there is no dense phase. Received: --dense=0 "
            "and no --initial_weights. Give a file of weights, or epochs of a dense phase."
        )
    return parts


def _load(model: Any) -> None:
    try:
        model.load_weights(FLAGS.initial_weights)
    except Exception as error:  # of files, of HDF5, of layers that do not fit
        raise ProblemError(
            f"Expected weights of this network. Received: --initial_weights="
            f"{FLAGS.initial_weights}, of which Keras says: {str(error).splitlines()[0]}"
        ) from error


def _settings() -> dict[str, Any]:
    """Returns the flags that affect the results."""
    of_recipes = [
        flag
        for module, found in FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.startswith("recipes.")
        for flag in found
    ]
    settings = {f.name: f.value for f in of_recipes if f.name not in _WHERE}
    kerases = {"keras": keras.__name__.partition(".")[0], "backend": keras.backend.backend()}
    return {**settings, **kerases, "arm": FLAGS.arm, "seed": FLAGS.seed}


def _strategy() -> tf.distribute.Strategy | None:
    """Returns the strategy for all devices of TensorFlow, if there are several.

    Keras's own for JAX needs batches that divide by their number, evaluation's last one included.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return None
    print(f"Training on {len(devices)} devices.")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _num_parameters(model: Any) -> int:
    """Returns the number of trainable weights, without masks."""
    return sum(int(tf.size(w)) if IS_LEGACY else w.numpy().size for w in model.trainable_weights)


def _logs(folder: pathlib.Path) -> list[Any]:
    return [
        keras.callbacks.CSVLogger(folder / "epochs.csv", append=True),
        keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
    ]


def _export(model: Any, folder: pathlib.Path) -> None:
    """Writes the plain model: a Keras file and, except on PyTorch, a SavedModel."""
    model.save(folder / "model.keras")
    print(f"Saved the plain model as {folder / 'model.keras'}")
    backend = keras.backend.backend()
    if backend != "torch":
        # JAX has no gradient of a convolution whose steps are longer than 1 over any length.
        options = {"jax2tf_kwargs": {"with_gradient": False}} if backend == "jax" else {}
        with contextlib.redirect_stdout(io.StringIO()):  # a page of endpoints and captures
            model.export(folder / "saved_model", **options)
        print(f"Exported it as {folder / 'saved_model'}")
