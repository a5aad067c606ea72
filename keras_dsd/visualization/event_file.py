"""A file of TensorBoard's, written without TensorFlow."""

import io
import os
import pathlib
import socket
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_dsd.visualization.histogram import histogram


class EventFile:
    """A file of events, which is whole and closed after every call.

    TensorBoard's own writer imports TensorFlow wherever that is installed, and holds its file open.

    Args:
        folder: Where to make it. Files of earlier runs there stay, and are read before it.

    Raises:
        ImportError: tensorboard is not installed.
        ValueError: `folder` is no folder, or can't be written to.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        event = tensorboard_event()
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._append([event(wall_time=time.time(), file_version="brain.Event:2")])
        except OSError as error:
            raise ValueError(
                f"Expected `log_dir` to be a folder that can be written to. Received: a folder "
                f"in which {str(folder)!r} can't be used: {error}. Give another, or let it be "
                f"written to."
            ) from error

    def add(self, step: int, values: Sequence[Any]) -> None:
        """Writes values, all at once.

        Args:
            step: Where TensorBoard shows them.
            values: What the functions below returned.

        Raises:
            OSError: They can't be written.
        """
        event = tensorboard_event()(wall_time=time.time(), step=step)
        event.summary.value.extend(values)
        try:
            self._append([event])
        except OSError as error:
            raise OSError(
                error.errno,
                f"Expected to write what TensorBoard shows. Received: path={str(self._path)!r}, "
                f"where the system says: {error.strerror or error}. Make room, or go on without "
                f"DSDTensorBoard",
            ) from error

    def _append(self, events: Sequence[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        with self._path.open("ab") as file:
            file.write(records.getvalue())


def tensorboard_event() -> Any:
    """Returns the class of TensorBoard's events.

    Raises:
        ImportError: tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError as error:
        raise ImportError(
            "Expected tensorboard, which DSDTensorBoard writes with. Received: an environment "
            "without it. Install it: pip install tensorboard matplotlib, or this package with its "
            "extra `tensorboard`."
        ) from error
    return Event


def scalar(tag: str, value: float) -> Any:
    """Returns a number to write.

    Args:
        tag: What TensorBoard calls it.
        value: The number; it is kept in float32.
    """
    from tensorboard.plugins.scalar.metadata import create_summary_metadata

    return _value(tag, create_summary_metadata("", ""), np.float32(value))


def text(tag: str, markdown: str) -> Any:
    """Returns text to write.

    Args:
        tag: What TensorBoard calls it.
        markdown: The text.
    """
    from tensorboard.plugins.text.metadata import create_summary_metadata

    return _value(tag, create_summary_metadata("", ""), np.array(markdown.encode(), object))


def image(tag: str, png: bytes, width: int, height: int) -> Any:
    """Returns an image to write.

    Args:
        tag: What TensorBoard calls it.
        png: The image, encoded.
        width: In pixels.
        height: In pixels.
    """
    from tensorboard.plugins.image.metadata import create_summary_metadata

    parts = [str(width).encode(), str(height).encode(), png]
    return _value(tag, create_summary_metadata("", ""), np.array(parts, object))


def magnitudes(tag: str, values: np.ndarray) -> Any:
    """Returns a histogram to write, of the magnitudes of what is finite.

    Its buckets are of one width, from 0; zeros are in the first.

    Args:
        tag: What TensorBoard calls it.
        values: An array of any shape.
    """
    from tensorboard.plugins.histogram.metadata import create_summary_metadata

    found = histogram(values).magnitudes()
    counts = np.array(found.counts or [0])
    counts[0] += found.num_zeros
    edges = found.edges if found.counts else np.zeros(2)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return _value(tag, create_summary_metadata("", ""), buckets)


def _value(tag: str, metadata: Any, value: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    return Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(value))
