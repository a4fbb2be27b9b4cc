"""The HTTP service: load models from a store, validate requests, run forward passes. It knows nothing of training."""

import os

# One BLAS thread per worker. With BLAS's default the threads of several workers compete for the same cores: 264 against
# 926 requests/s with 32 rows each on two cores. NumPy reads these variables once, when it is first imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
