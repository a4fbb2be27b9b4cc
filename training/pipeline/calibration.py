"""The calibration of a trained network on its validation rows: the temperature of its probabilities.

The networks of an ensemble keep their logits: each has its own validation rows, and no row is left that none of them
trained on, so nothing can show that a temperature helps their average. Averaging is what calibrates it, and an average
of calibrated networks says too little; Rahaman & Thiery 2021, "Uncertainty quantification and deep ensembles".
"""

from __future__ import annotations

import numpy as np

from model_store.nn import Sequential, Softmax
from model_store.schema.signature import RegressionOutput
from training.encoded_rows import apply_in_pieces
from training.evaluation.temperature import MIN_ROWS, TemperatureFit, fit_temperature
from training.network.post_training import divide_logits, has_logits
from training.pipeline.prepared_job import PreparedJob

_FOLDS_KEY = 8  # of the generator of the halves, after those of an ensemble


def scale_temperature(prepared: PreparedJob, network: Sequential) -> TemperatureFit | None:
    """Divide the logits of a trained classifier by the temperature of its validation rows, where that helps.

    Return the fit; None, and the network as it is, if it does not lower the log loss of rows not used for it, if the
    job turns it off, or if the network has no logits.
    """
    settings, rows = prepared.job.settings, prepared.split.validation
    is_classifier = not isinstance(prepared.signature.output, RegressionOutput) and has_logits(network)
    is_on = settings.answers.temperature and settings.train.ensemble is None
    if not (is_on and is_classifier) or len(rows) < MIN_ROWS:
        return None
    logits = apply_in_pieces(network.without_last(), prepared.x_validation).astype(np.float64)
    if not np.isfinite(logits).all():
        return None  # the evaluation of the network reports it
    targets = prepared.encode_targets(rows).astype(np.float64)
    rng = np.random.default_rng(np.random.SeedSequence(settings.train.seed, spawn_key=(_FOLDS_KEY,)))
    is_softmax = isinstance(network.modules[-1], Softmax)
    fit = fit_temperature(logits, targets, rng, prepared.weights(rows), is_softmax=is_softmax)
    if fit is not None:
        divide_logits(network, fit.temperature)
    return fit
