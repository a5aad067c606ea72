"""Targets by the rules of the layout: packages in layers, folders of tests."""

def layered_packages(root, layers):
    """Makes a library of each package or module under `root`.

    Args:
        root: The package that holds them.
        layers: Lists of their names, the lowest layer first. Each depends on those below its own.
    """
    native.py_library(
        name = root + "/__init__",
        srcs = [root + "/__init__.py"],
        data = [root + "/py.typed"],
    )
    below = [":" + root + "/__init__"]
    for layer in layers:
        for name in layer:
            path = root + "/" + name
            native.py_library(
                name = path,
                srcs = native.glob([path + ".py", path + "/**/*.py"]),
                deps = below,
            )
        below = below + [":%s/%s" % (root, name) for name in layer]

def pytest_folder(name, folder):
    """Makes a test of the quick tests in `folder`, on the path to Keras that --test_env sets."""
    native.py_test(
        name = name,
        srcs = native.glob([folder + "/**/*.py"]) + ["tools/run_bazel_test.py"],
        main = "tools/run_bazel_test.py",
        timeout = "eternal",
        args = [folder],
        data = [":programs_and_pages"],
        deps = [":tests/helpers"],
    )
