"""BentoML: its service class with onnxruntime, rows as an array."""

import os
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType
from session import load


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
)
class Predictor:
    def __init__(self) -> None:
        self.forward = load()

    @bentoml.api
    async def predict(self, instances: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self.forward(instances)
