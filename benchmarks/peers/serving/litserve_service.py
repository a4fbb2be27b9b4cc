"""LitServe: its API class with onnxruntime, as many inference processes and HTTP servers as workers."""

import os

import litserve
import numpy as np
from session import load


class Api(litserve.LitAPI):
    def setup(self, device):
        self.forward = load()

    def decode_request(self, request):
        return np.array(request["instances"], np.float32)

    def predict(self, rows):
        return self.forward(rows)

    def encode_response(self, output):
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    workers = int(os.environ["BENCH_WORKERS"])
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=workers)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=workers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
