"""A client of the service, standard library only: `from model_store.client import Client`."""

from model_store.client.http import Client, ServiceError

__all__ = ["Client", "ServiceError"]
