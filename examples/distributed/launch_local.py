"""Starts workers of a program on this machine, and tells each which one it is.

TensorFlow reads that from TF_CONFIG, `keras.distribution.initialize` from KERAS_DISTRIBUTION_*.
Arguments after `--` are passed to the program. If a worker fails, the others are ended.

    python examples/distributed/launch_local.py --workers=2 -- --sparsity=0.5
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("workers", 2, "Number of workers.", lower_bound=1)
flags.DEFINE_string(
    "program", str(pathlib.Path(__file__).with_name("train.py")), "What each of them runs."
)


def free_ports(count):
    """Returns ports of this machine that nothing listens at; all are held until all are found."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(index, addresses, arguments):
    """Starts the worker `index` of those at `addresses`."""
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    told = {
        "TF_CONFIG": json.dumps(config),
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(addresses),
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(addresses)),
        "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
    }
    return subprocess.Popen(
        [sys.executable, FLAGS.program, *arguments],
        env={**os.environ, **told, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip


def forward(index, process):
    """Prints what a worker prints, each line with the worker's number."""
    for line in process.stdout:
        print(f"[{index}] {line}", end="", flush=True)


def end(processes):
    """Ends those that still run."""
    for each in processes:
        each.terminate()
    for each in processes:
        try:
            each.wait(5)
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def wait(processes):
    """Waits for all, or until one fails; returns the exit code."""
    while True:
        codes = [each.poll() for each in processes]
        for index, code in enumerate(codes):
            if code:
                print(f"worker {index} ended with {code}: the others are ended", flush=True)
                return 1
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.2)


def main(argv):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(FLAGS.workers)]
    processes = []
    # A terminated launcher is to end its workers as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for index in range(FLAGS.workers):
            processes.append(start(index, addresses, argv[1:]))
        threads = [threading.Thread(target=forward, args=each) for each in enumerate(processes)]
        for each in threads:
            each.start()
        return wait(processes)
    finally:
        end(processes)


if __name__ == "__main__":
    app.run(main)
