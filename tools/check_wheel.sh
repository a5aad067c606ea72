#!/usr/bin/env bash
# Builds the wheel as a release would and uses it as a user would: away from the checkout, where
# nothing that the wheel forgot can be found. Usage: check_wheel.sh PYTHON_WITH_BUILD_AND_UV
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Builds the wheel from the source distribution, which is complete then too.
PATH="$(dirname "$python"):$PATH"
"$python" -m build --installer uv --outdir "$work/dist" "$checkout"
wheel=$(echo "$work"/dist/*.whl)
uv tool run --quiet twine check --strict "$work"/dist/*

"$python" -m zipfile --list "$wheel" | tee "$work/names"
grep --quiet keras_dsd/py.typed "$work/names" || { echo "The wheel lacks py.typed." >&2; exit 1; }
if grep --invert-match --extended-regexp '^(File Name|keras_dsd/|keras_dsd-)' "$work/names"; then
    echo "The wheel has files, above, outside of keras_dsd." >&2
    exit 1
fi

uv venv --quiet --python "$python" "$work/venv"
uv pip install --quiet --python "$work/venv" "${wheel}[examples]"
cd "$work"
"$work/venv/bin/python" "$checkout/tools/run_readme.py" "$checkout/README.md" tf_keras
"$work/venv/bin/python" -c \
    "import keras; keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)]).save('m.keras')"
"$work/venv/bin/keras-dsd" inspect m.keras

# As docs/install.md describes for JAX and PyTorch without TensorFlow: with the newest JAX, and with
# the PyTorch of the tests, since uv has that already, and its CUDA is several GB. TORCH=torch takes
# the newest.
uv venv --quiet --python "$python" "$work/light"
uv pip install --quiet --python "$work/light" --no-deps "$wheel"
uv pip install --quiet --python "$work/light" absl-py keras numpy rich wrapt jax
uv pip install --quiet --python "$work/light" "${TORCH:-$(grep '^torch' "$checkout/tests/constraints.txt")}" scikit-learn
if "$work/light/bin/python" -c "import tensorflow" 2>/dev/null; then
    echo "TensorFlow came along, where none was to be installed." >&2
    exit 1
fi
for backend in jax torch; do
    OMP_NUM_THREADS=1 KERAS_BACKEND=$backend "$work/light/bin/python" "$checkout/tools/run_readme.py" "$checkout/README.md" keras
done

echo "The wheel is complete: $(basename "$wheel")"
