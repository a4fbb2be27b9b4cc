"""A client of a Forward Pass service, standard library only: `from forward_pass_client import Client`."""

from forward_pass_client.client import Client
from forward_pass_client.errors import Fault, InputError, NotFoundError, ServiceError

__all__ = ["Client", "Fault", "InputError", "NotFoundError", "ServiceError"]
