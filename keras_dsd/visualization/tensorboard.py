"""DSDTensorBoard: logs of the sparsity, magnitudes and phases of a run for TensorBoard."""

import importlib
import io
import math
import os
import pathlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_dsd.algorithm.device_masks import measure
from keras_dsd.algorithm.phases import Phase
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.observers import MOMENTS, Moment, Observer
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks
from keras_dsd.utils.figures import new_figure, shade
from keras_dsd.visualization.histogram import Histogram, histogram_of

_WIDTH, _HEIGHT, _DOTS_PER_INCH = 5, 3, 100  # cards are small


class DSDTensorBoard(Observer):
    """Logs the sparsity, magnitudes and phases of a run for TensorBoard.

    Pass it to the schedule, `DSDSchedule(10, 10, 10, observers=[DSDTensorBoard("logs")])`, and the
    Keras callback `TensorBoard("logs")`, which logs losses, to `fit`, after the schedule. It writes
    to `log_dir/dsd`, which TensorBoard shows as a run next to `train` and `validation`:

    - `dsd_sparsity` and `dsd_sparsity/<weight>`: the measured fraction of zeros, and `dsd_phase`,
      at the end of each epoch; the step is the epoch counted from 0, as in the logs of Keras.
    - `dsd_magnitude/<weight>/<moment>`: histograms of magnitudes at each `Moment`, such as
      `2 after pruning`; the step is the number of epochs trained. Repeated phases add steps.
    - `dsd_phases/text`: the changes at each phase start; `dsd_phases/spans`: the run so far, with
      coloured phases and the sparsity as a line. The step is the number of epochs trained.

    Every call writes complete files, so the logs of an interrupted run are valid; a resumed run
    adds a file. Weights are measured once per epoch, and their values counted at each moment, on
    their devices. Histograms exclude NaN and infinity. TensorFlow is not imported.

    If several processes train one model, pass one to each of them; the first process writes.

    Args:
        log_dir: A local folder, which is created when a run starts.

    Raises:
        ImportError: tensorboard or matplotlib is not installed: the extra `tensorboard`.
        TypeError: `log_dir` is not a path.
        ValueError: `log_dir` is invalid or, when a run starts, not writable.
    """

    def __init__(self, log_dir: "str | os.PathLike[str]") -> None:
        folder = checks.path("log_dir", log_dir, "folder", "logs")
        if folder is None:
            raise TypeError(
                "Expected `log_dir` to be the path of a folder. Received: log_dir=None. Give a "
                "str, such as 'logs'."
            )
        _event_class()
        new_figure(_WIDTH, _HEIGHT)
        self.log_dir = folder
        # State of the run, which may take several calls of `fit`.
        self._path: pathlib.Path | None = None
        self._timeline: Timeline | None = None
        self._phases: list[tuple[int, int]] = []  # first epoch and index
        self._sparsity: list[tuple[int, float]] = []

    def on_begin(self, timeline: Timeline) -> None:
        """Starts a file; files of earlier runs are kept, and read before it.

        Raises:
            ValueError: `log_dir` is not writable.
        """
        if self._timeline != timeline:
            self._phases, self._sparsity = [], []
        self._timeline = timeline
        if not self.is_chief:
            return
        folder = self.log_dir / "dsd"
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _append(folder / name, file_version="brain.Event:2")
        except OSError as error:
            raise ValueError(
                f"Expected `log_dir` to be a writable folder. Received: a folder in which "
                f"{str(folder)!r} can't be used: {error}. Pass another folder, or make this one "
                f"writable."
            ) from error
        self._path = folder / name

    def on_phase(self, index: int, phase: Phase, epoch: int, changed: str) -> None:
        """Writes the changes, and the run so far."""
        if self._timeline is None:
            return
        number = len(self._timeline.phases)
        head = f"**Phase {index + 1} of {number}**, from epoch {epoch + 1}: {phase}"
        text = np.array(f"{head}\n\n{changed}".encode(), object)
        self._add(epoch, [_value("dsd_phases/text", "text", text)])
        self._phases = [each for each in self._phases if each[0] < epoch]  # it resumes there
        self._sparsity = [each for each in self._sparsity if each[0] <= epoch]
        self._draw()
        if index not in (last for _, last in self._phases[-1:]):
            self._phases.append((epoch, index))

    def on_moment(self, moment: Moment, weights: Sequence[PrunableWeight]) -> None:
        """Writes the magnitudes of each weight."""
        # TensorBoard sorts tags alphabetically; these have a fixed order.
        name = f"{MOMENTS.index(moment.name) + 1} {moment.name}"
        for weight in weights:
            tag = f"dsd_magnitude/{weight.short_path}/{name}"
            self._add(moment.epoch, [_magnitudes(tag, histogram_of(weight))])

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any], weights: Sequence[PrunableWeight]
    ) -> None:
        """Writes the sparsity of each weight and of all weights, and the phase."""
        values = {name: logs[name] for name in ("dsd_phase", "dsd_sparsity")}
        for weight, found in zip(weights, measure(weights), strict=True):
            measured = found.num_zeros / max(math.prod(weight.shape), 1)
            values[f"dsd_sparsity/{weight.short_path}"] = measured
        scalars = [_value(tag, "scalar", np.float32(value)) for tag, value in values.items()]
        self._add(epoch, scalars)
        self._sparsity.append((epoch + 1, logs["dsd_sparsity"]))

    def on_end(self) -> None:
        """Writes the complete run."""
        self._draw()

    def _add(self, step: int, values: Sequence[Any]) -> None:
        """Writes values, which the functions below return, at a step."""
        if self._path is None:
            return
        try:
            _append(self._path, step=step, summary={"value": values})
        except OSError as error:
            raise OSError(
                error.errno,
                f"Expected a writable file of TensorBoard. Received: path={str(self._path)!r}, "
                f"which failed with: {error.strerror or error}. Free disk space, or resume without "
                f"DSDTensorBoard",
            ) from error

    def _draw(self) -> None:
        """Writes an image of the phases so far, if an epoch was trained."""
        if not self._sparsity or self._path is None or self._timeline is None:
            return
        now = self._sparsity[-1][0]
        figure, axes = new_figure(_WIDTH, _HEIGHT)
        ends = [*(start for start, _ in self._phases[1:]), now]
        for (start, index), end in zip(self._phases, ends, strict=True):
            kind = self._timeline.kind(index)
            shade(axes, start, end, kind, kind)
        sparsity = zip(*self._sparsity, strict=True)
        axes.plot(*sparsity, color="black", marker=".", drawstyle="steps-pre")
        axes.set_xlim(self._phases[0][0], now)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("epochs trained")
        axes.set_ylabel("sparsity, measured")
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=_DOTS_PER_INCH)
        size = [str(inches * _DOTS_PER_INCH).encode() for inches in (_WIDTH, _HEIGHT)]
        image = np.array([*size, png.getvalue()], object)
        self._add(now, [_value("dsd_phases/spans", "image", image)])


def _append(path: pathlib.Path, **fields: Any) -> None:
    """Appends an event to a TensorBoard file, which is complete and closed afterwards.

    TensorBoard's own writer imports TensorFlow if it is installed, and keeps its file open.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    event = _event_class()(wall_time=time.time(), **fields)
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    with path.open("ab") as file:
        file.write(record.getvalue())


def _event_class() -> Any:
    """Returns the event class of TensorBoard."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError as error:
        raise ImportError(
            "Expected tensorboard, which writes the logs. Received: an environment "
            "without it. Install it: pip install tensorboard matplotlib, or this package with its "
            "extra `tensorboard`."
        ) from error
    return Event


def _magnitudes(tag: str, found: Histogram) -> Any:
    """Returns a histogram of the magnitudes of finite values, to write.

    Its buckets have equal widths, from 0; zeros are in the first.
    """
    found = found.magnitudes()
    counts = np.array(found.counts or [0])
    counts[0] += found.num_zeros
    edges = found.edges if found.counts else np.zeros(2)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return _value(tag, "histogram", buckets)


def _value(tag: str, plugin: str, value: Any) -> Any:
    """Returns a value to write, for a plugin of TensorBoard."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    plugin_module = importlib.import_module(f"tensorboard.plugins.{plugin}.metadata")
    metadata = plugin_module.create_summary_metadata("", "")
    return Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(value))
