"""One peer of the quality benchmark: fit on one file, predict the rows of another.

    python contestant.py NAME TRAIN TEST TARGET (numbers|classes) SEED ANSWER

Writes ANSWER as JSON: `seconds` of the processor for preparing, fitting and predicting, without imports; `version`; and
`predictions`, or `labels` and `probabilities`. All settings are the library's defaults, but for one thread, the seed
and what `preparation.py` documents. scikit-learn's MLP has standardised inputs and targets: it is useless without.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

sys.path.insert(0, str(Path(__file__).parent))
from preparation import categories, read, with_fewer_categories, with_medians  # noqa: E402

Fit = Callable[[Any, Any, Any, bool, int], tuple[Any, Any]]  # returns the fitted model and the prepared test rows


def sklearn_mlp() -> Fit:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor  # noqa: PLC0415
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: PLC0415

    def fit(known: Any, y: Any, asked: Any, classes: bool, seed: int) -> tuple[Any, Any]:
        texts = categories(known)
        numbers = [name for name in known.columns if name not in texts]
        one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=100, sparse_output=False)
        steps = [
            ("numbers", make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
            ("texts", one_hot, texts),
        ]
        network: Any = (
            MLPClassifier(random_state=seed)
            if classes
            else TransformedTargetRegressor(MLPRegressor(random_state=seed), transformer=StandardScaler())
        )
        for frame in (known, asked):
            frame[texts] = frame[texts].astype(object)
        return make_pipeline(ColumnTransformer(steps), network).fit(known, y), asked

    return fit


def sklearn_trees() -> Fit:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor  # noqa: PLC0415

    def fit(known: Any, y: Any, asked: Any, classes: bool, seed: int) -> tuple[Any, Any]:
        known, asked = with_fewer_categories(known, asked, 253)
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        return kind(random_state=seed).fit(known, y), asked

    return fit


def lightgbm() -> Fit:
    from lightgbm import LGBMClassifier, LGBMRegressor  # noqa: PLC0415

    def plain(frame: Any) -> Any:
        """LightGBM refuses names with the characters of JSON."""
        return frame.set_axis([f"c{index}" for index in range(len(frame.columns))], axis=1)

    def fit(known: Any, y: Any, asked: Any, classes: bool, seed: int) -> tuple[Any, Any]:
        kind = LGBMClassifier if classes else LGBMRegressor
        return kind(random_state=seed, n_jobs=1, verbose=-1).fit(plain(known), y), plain(asked)

    return fit


def catboost() -> Fit:
    from catboost import CatBoostClassifier, CatBoostRegressor  # noqa: PLC0415

    def fit(known: Any, y: Any, asked: Any, classes: bool, seed: int) -> tuple[Any, Any]:
        texts = categories(known)
        for frame in (known, asked):
            for name in texts:
                frame[name] = frame[name].astype(object).fillna("(missing)").astype(str)
        kind = CatBoostClassifier if classes else CatBoostRegressor
        model = kind(random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False)
        return model.fit(known, y, cat_features=texts), asked

    return fit


def realmlp(**more: Any) -> Fit:
    import torch  # noqa: PLC0415
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor  # noqa: PLC0415

    torch.set_num_threads(1)

    def fit(known: Any, y: Any, asked: Any, classes: bool, seed: int) -> tuple[Any, Any]:
        known, asked = with_medians(known, asked)  # its networks take no missing numbers
        kind = RealMLP_TD_Classifier if classes else RealMLP_TD_Regressor
        model = kind(device="cpu", random_state=seed, n_threads=1, **(more if classes else {}))
        return model.fit(known, y, cat_col_names=categories(known)), asked

    return fit


PEERS: dict[str, tuple[Callable[[], Fit], tuple[str, ...]]] = {
    "sklearn-mlp": (sklearn_mlp, ("scikit-learn",)),
    "sklearn-hgb": (sklearn_trees, ("scikit-learn",)),
    "lightgbm": (lightgbm, ("lightgbm",)),
    "catboost": (catboost, ("catboost",)),
    "realmlp": (realmlp, ("pytabkit", "torch")),
    # Its authors' advice where log loss counts: no label smoothing, and the epoch of the lowest log loss.
    "realmlp-log-loss": (lambda: realmlp(use_ls=False, val_metric_name="cross_entropy"), ("pytabkit", "torch")),
}


def main() -> None:
    name, train, test, target, task, seed, answer = sys.argv[1:]
    warnings.simplefilter("ignore")
    make, packages = PEERS[name]
    fit, classes = make(), task == "classes"
    begin = process_time()
    known, y, asked = read(Path(train), Path(test), target, classes=classes)
    model, asked = fit(known, y, asked, classes, int(seed))
    found: dict[str, Any]
    if classes:
        probabilities = model.predict_proba(asked)
        found = {"labels": [str(label) for label in model.classes_], "probabilities": probabilities.tolist()}
    else:
        found = {"predictions": model.predict(asked).ravel().tolist()}
    found["seconds"] = process_time() - begin
    found["version"] = " ".join(f"{package} {version(package)}" for package in packages)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
