"""Tuned by hand: Starlette without a schema, orjson for JSON, onnxruntime for the network."""

import numpy as np
import orjson
from session import load
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

forward = load()


async def predict(request: Request) -> Response:
    rows = np.array(orjson.loads(await request.body())["instances"], np.float32)
    body = orjson.dumps({"predictions": forward(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
