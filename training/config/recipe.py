"""The recipe for a table of some size, which `train init` writes: the network and its training settings.

The default is a network like RealMLP (Holzmüller, Grinsztajn & Steinwart 2024). Below `MIN_SINGLE_ROWS` rows it is an
ensemble of narrower ones: the validation rows of one network are then too few to stop it at the right epoch, and the
average of networks that stop on different rows has a lower error. Tables of a few rows get a small network. All was
chosen on the development splits of benchmarks/quality. Numbers are scaled by mean and standard deviation, skewed ones
after `asinh`: the paper's smooth clip lost what large values of a column say of the target.
"""

from __future__ import annotations

from model_store.nn.layers.activations import ACTIVATIONS
from training.config.defaults import default_patience

MIN_ENSEMBLE_ROWS, MIN_SINGLE_ROWS = 50, 2500
_BATCH, _EPOCHS, _MIN_EPOCHS, _MAX_STEPS = 256, 100, 10, 16_000
_MANY_MEMBERS, _MEMBERS = 8, 5
_MAX_ROWS_OF_MANY, _MAX_COLUMNS_OF_MANY = 1000, 40
_MEMBER_BATCH, _MIN_MEMBER_EPOCHS, _MEMBER_STEPS = 64, 20, 400
_MAX_PERIODIC_COLUMNS = 100  # more take most of the time, and were no better
_FAST_STEPS = 4000  # that train a small table


def recommend(rows: int, columns: int, task: str, *, fast: bool) -> str:
    """Return the sections `[network]` and `[train]` for a table of so many rows and used columns.

    task: "classification", "multi_label" or "regression".
    fast: asks for the small network.
    """
    if fast or rows < MIN_ENSEMBLE_ROWS:
        return _small_network(rows, columns, task)
    if rows >= MIN_SINGLE_ROWS:
        epochs = max(_MIN_EPOCHS, min(_EPOCHS, _MAX_STEPS * _BATCH // rows))
        size, batch, ensemble = 128, _BATCH, _ENSEMBLE_HINT
    else:
        members = _MANY_MEMBERS if rows < _MAX_ROWS_OF_MANY and columns <= _MAX_COLUMNS_OF_MANY else _MEMBERS
        trained = rows - rows // members
        epochs = max(_MIN_MEMBER_EPOCHS, min(_EPOCHS, round(_MEMBER_STEPS * _MEMBER_BATCH / trained)))
        size, batch, ensemble = 64, _MEMBER_BATCH, _ENSEMBLE.format(members=members)
    periodic = columns <= _MAX_PERIODIC_COLUMNS
    return (_NUMBERS if task == "regression" else _CLASSES).format(
        loss=_LOSSES[task],
        size=size,
        first=_PERIODIC if periodic else "",
        periodic_factor=_PERIODIC_FACTOR if periodic else "",
        epochs=epochs,
        patience=epochs * 3 // 5,
        batch=batch,
        activations=_NAMES,
        ensemble=ensemble,
    )


def _small_network(rows: int, columns: int, task: str) -> str:
    batch = max(1, min(32, rows // 8))
    epochs = round(max(20, min(500, _FAST_STEPS * batch // rows)), -1)
    return _SMALL.format(
        size=max(8, min(64, 1 << (4 * columns - 1).bit_length())),
        activations=_NAMES,
        loss=_LOSSES[task],
        clip=_CLIP_NORM_LINE if task == "regression" else "",
        epochs=epochs,
        patience=default_patience(epochs),
        batch=batch,
        ensemble=_ENSEMBLE_HINT,
    )


_LOSSES = {"classification": "cross_entropy", "multi_label": "binary_cross_entropy", "regression": "mse"}
_NAMES = ", ".join(ACTIVATIONS)
_PERIODIC = "{ periodic = 16, size = 4, sigma = 0.1 }, "
_PERIODIC_FACTOR = ", periodic = 0.1"
_ENSEMBLE_HINT = """\
# ensemble = 5         # the model is the average of five networks, each trained without another fifth of the rows
"""
_ENSEMBLE = """\
ensemble = {members}         # the model is the average of {members} networks, each stopped on another part of the rows
"""
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
{ensemble}"""
# Of 120 small tables, half of them skewed, 4 diverged without it and none with it.
_CLIP_NORM_LINE = (
    "clip_norm = 1.0      # limits the norm of the gradient, so that outliers do not make training diverge\n"
)
_NUMBERS = """\
[network]  # `train init --fast` writes a smaller network, which trains faster and is less accurate
layers = [
    {{ embedding = 8 }}, {first}"feature_scale",
    {size}, {{ parametric = "mish" }}, {{ dropout = 0.15 }},
    {size}, {{ parametric = "mish" }}, {{ dropout = 0.15 }},
    {size}, {{ parametric = "mish" }}, {{ dropout = 0.15 }},
]  # hidden sizes and activations: {activations}
parametrization = "ntk"
clip_outputs = true  # predictions stay in the range of the training targets

[train]
loss = "{loss}"
optimizer = "adamw"  # or "adam", "sgd", "rmsprop"
learning_rate = 0.2
beta2 = 0.95
schedule = "coslog4"  # of the learning rate
weight_decay = 0.02
regularization_schedule = "flat_cos"  # of weight decay and dropout
rate_factors = {{ bias = 0.1, feature_scale = 6{periodic_factor}, parametric = 0.1 }}
decay_factors = {{ bias = 0 }}
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = {patience} }}  # stop after {patience} epochs without improvement; keeps the best weights
{ensemble}"""
_CLASSES = """\
[network]  # `train init --fast` writes a smaller network, which trains faster and is less accurate
layers = [
    {{ embedding = 8 }}, {first}"feature_scale",
    {size}, "relu", {{ dropout = 0.15 }},
    {size}, "relu", {{ dropout = 0.15 }},
]  # hidden sizes and activations: {activations}
parametrization = "ntk"

[train]
loss = "{loss}"
optimizer = "adamw"  # or "adam", "sgd", "rmsprop"
learning_rate = 0.02
beta2 = 0.95
schedule = "flat_cos"  # of the learning rate
weight_decay = 0.1
regularization_schedule = "flat_cos"  # of weight decay and dropout
rate_factors = {{ bias = 0.1, feature_scale = 6{periodic_factor} }}
decay_factors = {{ bias = 0 }}
epochs = {epochs}
batch_size = {batch}
seed = 0             # the same seed gives the same model, bit for bit
early_stopping = {{ patience = {patience} }}  # stop after {patience} epochs without improvement; keeps the best weights
{ensemble}"""
