"""The optional packages of the project, by extra, and the command that installs them."""

from __future__ import annotations

import shlex

PACKAGES: dict[str, tuple[str, ...]] = {  # as in pyproject.toml
    "arrow": ("pyarrow>=22",),
    "excel": ("openpyxl>=3.1",),
    "signing": ("cryptography>=45",),
    "buckets": ("obstore>=0.11",),
    "otel": ("opentelemetry-sdk>=1.39", "opentelemetry-exporter-otlp-proto-http>=1.39"),
    "sweep": ("optuna>=5", "psycopg[binary]>=3.3"),
    "dask": ("distributed>=2026.8", "pyarrow>=22"),
    "mpi": ("mpi4py>=4.1",),
    "onnx": ("onnx>=1.20",),
    "sklearn": ("scikit-learn>=1.8", "skops>=0.13"),
    "safetensors": ("safetensors>=0.6",),
    "keras": ("h5py>=3.14",),
    "javascript": ("quickjs-ng>=0.17",),
    "images": ("pillow>=12",),
    "grpc": ("grpcio>=1.80", "grpcio-health-checking>=1.80"),
}


def install_command(extra: str) -> str:
    """Return `pip install 'pyarrow>=22'`. It names the packages, because no index has this project."""
    return f"pip install {shlex.join(PACKAGES[extra])}"
