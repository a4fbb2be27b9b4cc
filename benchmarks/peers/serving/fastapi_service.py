"""FastAPI as in its documentation: pydantic models for request and response, onnxruntime for the network."""

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from session import load


class Rows(BaseModel):
    instances: list[list[float]]


class Answers(BaseModel):
    predictions: list[list[float]]


app = FastAPI()
forward = load()


@app.post("/predict")
async def predict(rows: Rows) -> Answers:
    return Answers(predictions=forward(np.array(rows.instances, np.float32)).tolist())
