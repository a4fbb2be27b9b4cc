"""The Open Inference Protocol over gRPC, beside HTTP. Only `server.py` and `calls.py` import gRPC, in a worker."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else every broken connection is a line on stderr
