"""The client of the service: `Client(url).predict("penguins", rows)`.

It lives beside the models, since `models predict --url` is one of its users, and needs nothing of the service.
"""

from model_store.client.http import Client, ServiceError

__all__ = ["Client", "ServiceError"]
