"""JAX: masks of weights that are cut into parts on four devices.

python -m tests.helpers.device_cases_run
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_dsd.adapters.keras3.backends.jax_arrays import ARRAYS, JaxArrays
from tests.helpers import device_cases
from tests.keras3.test_device_arrays import CASES

if __name__ == "__main__":
    JaxArrays.is_on_host = lambda self, values: False
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
    jax.config.update("jax_enable_x64", True)

    def put(array):
        """Cuts the last two axes, whose sizes are even, into halves."""
        cut = [None] * (array.ndim - 2) + ["a", "b"]
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*cut)))

    for pattern, scope, dtypes, with_mask in CASES:
        device_cases.check(ARRAYS, put, np.asarray, dtypes, pattern, scope, with_mask)
    device_cases.check_histograms(ARRAYS, put, "float32")
    part = put(np.zeros(device_cases.DENSE[0])).sharding.shard_shape(device_cases.DENSE[0])
    print(len(CASES), "cases in parts of", *part)
