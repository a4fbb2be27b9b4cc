"""Estimators for scikit-learn that train as a job of `train init` does, and publish models for the service.

    classifier = ForwardPassClassifier().fit(frame, species)
    classifier.predict_proba(frame)
    classifier.publish("models", "penguins")

Needs the extra `sklearn`; no other module of this package imports scikit-learn.
"""

from importlib.util import find_spec

from model_store.utils.extras import install_command

if find_spec("sklearn") is None:
    raise ImportError(f"training.sklearn needs scikit-learn: {install_command('sklearn')} (the extra 'sklearn')")

from training.sklearn.estimators import ForwardPassClassifier, ForwardPassRegressor

__all__ = ["ForwardPassClassifier", "ForwardPassRegressor"]
