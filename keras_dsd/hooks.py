"""Every hook of a Keras callback, doing nothing, for either Keras without importing one."""

from typing import Any


def _hook(self: Any, *args: Any, **kwargs: Any) -> None:
    """Does nothing: Keras calls this."""


class Hooks:
    """Base of a callback that Keras 2 and Keras 3 both accept.

    Both call hooks by name and ask for no base class. What else their callback lists read is
    here too: no batch hook does anything, so no step has to wait for one.
    """

    _supports_tf_logs = True
    async_safe = True

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Takes what `fit` was given."""
        self.params = params or {}

    def set_model(self, model: Any) -> None:
        """Takes the model that is trained, evaluated or asked to predict."""
        self.model = model

    def _implements_train_batch_hooks(self) -> bool:
        return False

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = _hook
    on_train_batch_begin = on_train_batch_end = on_batch_begin = on_batch_end = _hook
    on_test_begin = on_test_end = on_test_batch_begin = on_test_batch_end = _hook
    on_predict_begin = on_predict_end = on_predict_batch_begin = on_predict_batch_end = _hook
