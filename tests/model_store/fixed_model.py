"""Write a model whose values no version of Python or NumPy computes differently: `python fixed_model.py WRITE [READ]`.

READ is such a file from another Python and NumPy; it is read and written again. All files must have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np

from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.nn import Array, build
from model_store.schema.signature import CategoryColumn, ClassificationOutput, NumberColumn, Signature


def numbers(*shape: int) -> Array:
    """Return multiples of 2⁻²³ below 2: exact in float32, with many digits in JSON."""
    count = int(np.prod(shape))
    return (np.array([i * 2_654_435_761 % 2**24 for i in range(count)], "<f4") / 2 ** np.float32(23)).reshape(shape)


def fixed_model() -> Model:
    layers = [
        {"type": "Linear", "input_size": 4, "output_size": 70},
        {"type": "ReLU"},
        {"type": "Linear", "input_size": 70, "output_size": 2},
        {"type": "Softmax"},
    ]
    arrays = {"modules.0.weights": numbers(70, 4), "modules.0.bias": numbers(70)}
    arrays |= {"modules.2.weights": numbers(2, 70), "modules.2.bias": numbers(2)}
    inputs = (NumberColumn("größe", 1 / 3, 1e-7), CategoryColumn("island 🐧", ("Biscoe", "Dream", "Torgersen")))
    training = {
        "floats": [0.1 + 0.2, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53, 123456789.123456789],
        "integers": [0, -1, 2**63, 2**64 - 1, -(2**63)],
        "text": 'ä \U0001f427 \u2028 \x7f \x1f " \\ /',
        "order": {"b": 1, "a": 2, "B": 3, "é": 4, "\U0001f427": 5, "\uffff": 6, "10": 7, "9": 8},
    }
    golden = Golden([[0.25, "Dream"]], numbers(1, 2))
    signature = Signature(inputs, ClassificationOutput("species", ("a", "b")))
    return Model(build(layers, "float32", arrays=arrays), signature, "Fixed", training, golden)


if __name__ == "__main__":
    first, *rest = map(Path, sys.argv[1:])
    npz.write(first, fixed_model())
    for path in rest:
        npz.write(first.with_suffix(".rewritten"), npz.read(path))
    files = [first, *(first.with_suffix(".rewritten") for _ in rest)]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    result = {"python": platform.python_version(), "numpy": np.__version__, "sha256": hashes}
    sys.stdout.write(json.dumps(result))
