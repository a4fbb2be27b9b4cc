"""The service: it loads models from a store, checks requests and runs forward passes over HTTP.

Nothing here knows how a model is trained.
"""

import os

# One BLAS thread a worker: workers are the parallelism, and threads of several of them fighting for the same cores
# cost more than half of the throughput (264 against 926 requests/s with 32 rows each on two cores). NumPy reads
# these once, when it is first imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
