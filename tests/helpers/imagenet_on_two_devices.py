"""Runs examples/imagenet.py where a CPU counts as two devices."""

import pathlib
import runpy

import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
program = pathlib.Path(__file__).parents[2] / "examples" / "imagenet.py"
runpy.run_path(str(program), run_name="__main__")
