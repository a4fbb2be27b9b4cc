"""A client of the service, standard library only."""
