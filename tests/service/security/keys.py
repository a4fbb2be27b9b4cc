"""Keys of each scope for the tests of access."""

from __future__ import annotations

import hashlib

from service.security import api_keys

ROWS = {"instances": [[3, 80]]}


KEY_OF = {scope: f"fp_{scope}" for scope in api_keys.SCOPES}


HEALTH = ["/", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"]


def line(name: str, scopes: str, secret: str) -> str:
    return f"{name} {scopes} sha256:{hashlib.sha256(secret.encode()).hexdigest()}\n"


def bearer(scope: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY_OF[scope]}"}
