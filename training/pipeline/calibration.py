"""The calibration of a trained network on its validation rows: the temperature of its probabilities, and the decision
threshold of two classes.

The networks of an ensemble keep their logits: each has its own validation rows, and no row is left that none of them
trained on, so nothing can show that a temperature helps their average. Averaging is what calibrates it, and an average
of calibrated networks says too little; Rahaman & Thiery 2021, "Uncertainty quantification and deep ensembles".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_store.artifact.conformal import Conformal, rows_needed
from model_store.errors import Fault
from model_store.nn import Sequential, Softmax
from model_store.schema.signature import ClassificationOutput, MultiLabelOutput, RegressionOutput, Signature
from training.encoded_rows import apply_in_pieces
from training.errors import JobError
from training.evaluation.conformal_scores import classification_scores, fit_local_scales, regression_scores
from training.evaluation.decision_threshold import ChosenThreshold, UnreachableThresholdError, choose_threshold
from training.evaluation.temperature import MIN_ROWS, TemperatureFit, fit_temperature
from training.network.post_training import divide_logits, has_logits
from training.pipeline.network_training import TrainedNetwork
from training.pipeline.prepared_job import PreparedJob

MIN_LEVEL = 0.9  # that the calibration rows of a job must be able to promise
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


def check_threshold(prepared: PreparedJob) -> None:
    """Raise JobError if the job asks for a decision threshold that cannot be chosen: before the training."""
    settings, output = prepared.job.settings, prepared.signature.output
    rule = settings.answers.threshold
    if rule is None:
        return
    if not isinstance(output, ClassificationOutput) or len(output.labels) != 2:
        problem = "only for two classes"
        fix = "remove it"
        if isinstance(output, ClassificationOutput):
            problem += f", found {len(output.labels)}"
        elif not isinstance(output, RegressionOutput):
            fix = "write label_threshold in [data], for several labels"
        raise JobError(prepared.job.source, [Fault("answers.threshold", problem, fix)])
    is_fixed = isinstance(rule, int | float)
    if not is_fixed and settings.train.ensemble is None and not len(prepared.split.validation):
        problem = "expected validation rows to choose it on, found none"
        fix = "write validation = 0.2 in [split], or a number as threshold"
        raise JobError(prepared.job.source, [Fault("answers.threshold", problem, fix)])


def check_calibration(prepared: PreparedJob) -> None:
    """Raise JobError if the job holds out calibration rows that promise nothing: before the training."""
    if not prepared.job.settings.split.calibration:
        return
    found = len(prepared.split.calibration)
    if isinstance(prepared.signature.output, MultiLabelOutput):
        fault = Fault("split.calibration", "only for a regression or one label for a row", "remove it")
    elif found < (needed := rows_needed(MIN_LEVEL)):
        problem = f"expected {needed} rows or more, to promise the level {MIN_LEVEL}; found {found}"
        fault = Fault("split.calibration", problem, "hold out a larger share, or remove it")
    else:
        return
    raise JobError(prepared.job.source, [fault])


def make_conformal(prepared: PreparedJob, trained: TrainedNetwork) -> Conformal | None:
    """Return the conformal scores of the calibration rows, or None without such rows.

    A regression has a local scale where that makes the intervals of validation rows narrower, or of the rows that the
    networks of an ensemble predict out of fold.
    """
    output, rows = prepared.signature.output, prepared.split.calibration
    if not len(rows) or isinstance(output, MultiLabelOutput):
        return None
    outputs, targets = apply_in_pieces(trained.network, prepared.encode_rows(rows)), prepared.dataset.targets
    if isinstance(output, ClassificationOutput):
        p = prepared.signature.decode_arrays(outputs)["probabilities"]
        return classification_scores(targets[rows], p).astype(trained.network.dtype)
    rng = np.random.default_rng(np.random.SeedSequence(prepared.job.settings.train.seed, spawn_key=(_FOLDS_KEY, 1)))
    scales = None
    if (held := trained.out_of_fold) is not None:
        others = held.predictor.apply(apply_in_pieces, prepared.encode_rows(held.rows))
        scales = fit_local_scales(targets[held.rows], output.decode(others), rng)
    elif len(others_rows := prepared.split.validation):
        others = apply_in_pieces(trained.network, prepared.x_validation)
        scales = fit_local_scales(targets[others_rows], output.decode(others), rng)
    return regression_scores(targets[rows], output.decode(outputs), scales).astype(trained.network.dtype)


def add_threshold(prepared: PreparedJob, trained: TrainedNetwork) -> tuple[Signature, ChosenThreshold | None]:
    """Return the signature with the decision threshold that the job asks for, and how it was chosen.

    It is chosen on the validation rows; for an ensemble on the rows that its networks predict out of fold. JobError if
    these are of one label, or no threshold reaches the precision.
    """
    signature, rule = prepared.signature, prepared.job.settings.answers.threshold
    if rule is None or not isinstance(output := signature.output, ClassificationOutput):
        return signature, None
    if isinstance(rule, int | float):
        p, rows = np.empty(0), np.empty(0, np.int64)
    elif (held := trained.out_of_fold) is not None:
        rows = held.rows
        p = held.predictor.apply(apply_in_pieces, prepared.encode_rows(rows))[:, -1]
    else:
        rows = prepared.split.validation
        p = apply_in_pieces(trained.network, prepared.x_validation)[:, -1]
    try:
        positive = prepared.dataset.targets[rows] == 1
        chosen = choose_threshold(rule, p, positive, prepared.weights(rows))
    except UnreachableThresholdError as error:
        fix = "ask for less, or hold out more validation rows"
        raise JobError(
            prepared.job.source, [Fault("answers.threshold", f"{error} in {len(rows)} rows", fix)]
        ) from error
    return replace(signature, output=replace(output, threshold=chosen.threshold)), chosen
