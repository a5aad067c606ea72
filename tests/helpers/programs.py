"""Runs programs that need a separate process: for logical devices, or as workers."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 240


def launched(command, timeout, **environment):
    """Runs a program that starts others; returns its exit code and what it printed."""
    with subprocess.Popen(
        [sys.executable, *map(str, command)], env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=timeout)
        except BaseException:
            process.terminate()  # not killed: it is to end what it has started
            raise
    return process.returncode, printed


class Workers:
    """One program in several processes, which TF_CONFIG has find each other on free ports.

    Args:
        number: How many.
        program: Its name in this package.
        arguments: Its arguments; `{}` stands for the worker's index.
        folder: Where their output goes.
    """

    def __init__(self, number, program, arguments, folder):
        self._outputs = [folder / f"output_{index}.txt" for index in range(number)]
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(number)]
        self._processes = []
        for index, output in enumerate(self._outputs):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            with output.open("w", encoding="utf-8") as file:
                self._processes.append(
                    subprocess.Popen(
                        [*command(program), *(str(each).format(index) for each in arguments)],
                        env={**os.environ, "TF_CONFIG": config},
                        cwd=ROOT, stdout=file, stderr=file,
                    )
                )  # fmt: skip

    def outputs(self):
        """Returns what each printed; all must have ended well."""
        try:
            codes = [each.wait(TIMEOUT) for each in self._processes]
        finally:
            self.kill()
        texts = [output.read_text(encoding="utf-8") for output in self._outputs]
        assert codes == [0] * len(codes), "\n\n".join(text[-2000:] for text in texts)
        return texts

    def wait_for_a_kill(self, index):
        """Waits until one has been killed, and ends the others: they can't continue without it."""
        try:
            assert self._processes[index].wait(TIMEOUT) == -signal.SIGKILL
        finally:
            self.kill()

    def kill(self):
        """Kills those that still run."""
        for each in self._processes:
            with contextlib.suppress(ProcessLookupError):
                each.kill()
            each.wait()


def run(program, *arguments, **environment):
    """Runs a program of this package, and returns what it printed; it must end well."""
    done = subprocess.run(
        [*command(program), *map(str, arguments)], env={**os.environ, **environment},
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def command(program):
    """Returns what runs a program of this package, if it is run from the repository's root."""
    return [sys.executable, *module(program)]


def module(program):
    """Returns what has Python run a program of this package."""
    return ["-m", f"tests.helpers.{program}"]


def address():
    """Returns an address of this machine that nothing listens to."""
    return f"127.0.0.1:{_free_ports(1)[0]}"


def _free_ports(number):
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [server.getsockname()[1] for server in servers]


def fork(call):
    """Calls in a process that is forked from this one, and returns its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        call()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
