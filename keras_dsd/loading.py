"""Makes files of wrapped models loadable once `keras_dsd` is imported, without importing Keras."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

WRAPPER = "keras_dsd>DSDWrapper"
_KERAS = "tf_keras"


def register_with_tf_keras() -> None:
    """Registers the wrapper with tf_keras now, or as soon as somebody imports it.

    tf_keras finds custom layers in a registry only. Registering there by importing it would
    bring TensorFlow into programs that don't use it.
    """
    if _KERAS in sys.modules:
        _register(sys.modules[_KERAS])
    else:
        sys.meta_path.insert(0, _Finder())


class _LazyWrapper:
    """Stands in the registry for the wrapper until a file asks for it."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Imports the wrapper, and returns one."""
        return importlib.import_module("keras_dsd.tfmot").DSDWrapper.from_config(config)


def _register(tf_keras: ModuleType) -> None:
    tf_keras.saving.get_custom_objects().setdefault(WRAPPER, _LazyWrapper)


class _Finder(importlib.abc.MetaPathFinder):
    """Sees tf_keras being imported, once, and leaves the import to the other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _KERAS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
