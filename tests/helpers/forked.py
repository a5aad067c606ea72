"""Runs programs in processes that are forked from one that has imported the frameworks.

To import TensorFlow and Keras takes longer than most of what the programs do then. Each still has a
separate process, flags, environment and devices: the one that it is forked from has computed
nothing.
"""

import atexit
import contextlib
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What is read as a framework is imported: a process that has other values can't be forked.
READ_AT_IMPORT = ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS", "TF_USE_LEGACY_KERAS", "XLA_FLAGS")
TIMEOUT = 900
_parents = {}


def run(*arguments, imports, cwd=None, env=None):
    """Runs Python with arguments, as subprocess.run would that captures text.

    Args:
        *arguments: A program's file, or `-m` and its module; and what it is given.
        imports: Modules to have imported already, which must not compute as they are imported.
        cwd: Where it runs.
        env: Its whole environment; None: this process's.
    """
    env = dict(os.environ if env is None else env)
    key = (*imports, *map(env.get, READ_AT_IMPORT))
    if key not in _parents:
        _parents[key] = _started(env, imports)
    parent = _parents[key]
    asked = {"arguments": [*map(str, arguments)], "cwd": str(cwd or pathlib.Path.cwd()), "env": env}
    parent.stdin.write(json.dumps(asked) + "\n")
    parent.stdin.flush()
    code, out, err = json.loads(parent.stdout.readline())
    return subprocess.CompletedProcess([*arguments], code, out, err)


def _started(env, imports):
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.forked", *imports], cwd=ROOT, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(_end, parent)
    return parent


def _end(parent):
    parent.stdin.close()
    parent.stdout.close()
    parent.wait()


def _serve(imports):
    # Programs print to separate files.
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in imports:
        with contextlib.suppress(ImportError):  # the program will say so, if it has to
            importlib.import_module(name)
    for line in requests:
        with contextlib.ExitStack() as stack:
            outputs = [os.memfd_create(name) for name in ("out", "err")]
            for output in outputs:
                stack.callback(os.close, output)
            child = os.fork()
            if not child:
                _become(json.loads(line), outputs)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = [_read(output) for output in outputs]
        answers.write(json.dumps([code, *texts]) + "\n")
        answers.flush()


def _read(descriptor):
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), encoding="utf-8", errors="replace") as file:
        return file.read()


def _become(asked, outputs):
    """Turns this process into the program, and ends it."""
    code = 1
    signal.alarm(TIMEOUT)
    try:
        for number, output in enumerate(outputs, start=1):
            os.dup2(output, number)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        code = _code_of(asked["arguments"])
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code_of(arguments):
    """Runs the program, and returns what its process is to end with."""
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, str(pathlib.Path.cwd()))
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            sys.path[:0] = [str(pathlib.Path(arguments[0]).parent), *filter(None, paths)]
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1:])
