"""Has the recipes choose the Keras of the path that is tested."""

import os

from paths import PATH

os.environ["TF_USE_LEGACY_KERAS"] = "1" if PATH == "tf_keras" else "0"
