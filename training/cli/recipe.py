"""The recipe that `train init` writes: the network and the training settings for a table of some size.

Small tables get a small network, which trains in a second. From `MIN_ACCURATE_ROWS` rows the default is a network like
RealMLP (Holzmüller, Grinsztajn & Steinwart 2024), which is more accurate and takes 10 to 30 times as long. It was
chosen on the development splits of benchmarks/quality; on smaller tables it was as often worse as better. Numbers are
scaled by mean and standard deviation: the paper's smooth clip lost what large values of a column say of the target.
"""

from __future__ import annotations

from model_store.nn.layers.activations import ACTIVATIONS
from training.config.defaults import default_patience

MIN_ACCURATE_ROWS = 2500
_ACCURATE_BATCH, _ACCURATE_EPOCHS, _MIN_ACCURATE_EPOCHS, _MAX_ACCURATE_STEPS = 256, 100, 10, 16_000
_FAST_STEPS = 4000  # that train a small table


def recommend(rows: int, columns: int, *, classes: bool, fast: bool) -> str:
    """Return the sections `[network]` and `[train]` for a table of so many rows and used columns.

    `fast` asks for the small network.
    """
    if fast or rows < MIN_ACCURATE_ROWS:
        return _small_network(rows, columns, classes=classes)
    epochs = max(_MIN_ACCURATE_EPOCHS, min(_ACCURATE_EPOCHS, _MAX_ACCURATE_STEPS * _ACCURATE_BATCH // rows))
    template = _CLASSES if classes else _NUMBERS
    patience = epochs * 3 // 5
    return template.format(epochs=epochs, patience=patience, batch=_ACCURATE_BATCH, activations=_NAMES)


def _small_network(rows: int, columns: int, *, classes: bool) -> str:
    batch = max(1, min(32, rows // 8))
    epochs = round(max(20, min(500, _FAST_STEPS * batch // rows)), -1)
    return _SMALL.format(
        size=max(8, min(64, 1 << (4 * columns - 1).bit_length())),
        activations=_NAMES,
        loss="cross_entropy" if classes else "mse",
        clip="" if classes else _CLIP_NORM_LINE,
        epochs=epochs,
        patience=default_patience(epochs),
        batch=batch,
    )


_NAMES = ", ".join(ACTIVATIONS)
_SMALL = """\
[network]
layers = [{size}, "relu"]  # hidden sizes and activations: {activations}

[train]
loss = "{loss}"
optimizer = "sgd"    # or "adam", "adamw", "rmsprop"
learning_rate = 0.01  # `train FILE --find-rate` suggests one
{clip}# schedule = "cosine"  # learning-rate schedule; or "one_cycle", "step", "plateau"
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = {patience} }}  # stop after {patience} epochs without improvement; keeps the best weights
# ensemble = 5         # the model is the average of five networks, each trained without another fifth of the rows
"""
# Of 120 small tables, half of them skewed, 4 diverged without it and none with it.
_CLIP_NORM_LINE = (
    "clip_norm = 1.0      # limits the norm of the gradient, so that outliers do not make training diverge\n"
)
_NUMBERS = """\
[network]  # `train init --fast` writes a smaller network, which trains 10 times as fast and is less accurate
layers = [
    {{ embedding = 8 }}, {{ periodic = 16, size = 4, sigma = 0.1 }}, "feature_scale",
    128, {{ parametric = "mish" }}, {{ dropout = 0.15 }},
    128, {{ parametric = "mish" }}, {{ dropout = 0.15 }},
    128, {{ parametric = "mish" }}, {{ dropout = 0.15 }},
]  # hidden sizes and activations: {activations}
parametrization = "ntk"
clip_outputs = true  # predictions stay in the range of the training targets

[train]
loss = "mse"
optimizer = "adamw"  # or "adam", "sgd", "rmsprop"
learning_rate = 0.2
beta2 = 0.95
schedule = "coslog4"  # of the learning rate
weight_decay = 0.02
regularization_schedule = "flat_cos"  # of weight decay and dropout
rate_factors = {{ bias = 0.1, feature_scale = 6, periodic = 0.1, parametric = 0.1 }}
decay_factors = {{ bias = 0 }}
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = {patience} }}  # stop after {patience} epochs without improvement; keeps the best weights
# ensemble = 5         # the model is the average of five networks, each trained without another fifth of the rows
"""
_CLASSES = """\
[network]  # `train init --fast` writes a smaller network, which trains 10 times as fast and is less accurate
layers = [
    {{ embedding = 8 }}, {{ periodic = 16, size = 4, sigma = 0.1 }}, "feature_scale",
    128, "relu", {{ dropout = 0.15 }},
    128, "relu", {{ dropout = 0.15 }},
]  # hidden sizes and activations: {activations}
parametrization = "ntk"

[train]
loss = "cross_entropy"
optimizer = "adamw"  # or "adam", "sgd", "rmsprop"
learning_rate = 0.02
beta2 = 0.95
schedule = "flat_cos"  # of the learning rate
weight_decay = 0.1
regularization_schedule = "flat_cos"  # of weight decay and dropout
rate_factors = {{ bias = 0.1, feature_scale = 6, periodic = 0.1 }}
decay_factors = {{ bias = 0 }}
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = {patience} }}  # stop after {patience} epochs without improvement; keeps the best weights
# ensemble = 5         # the model is the average of five networks, each trained without another fifth of the rows
"""
