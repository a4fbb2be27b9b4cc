"""`models predict`: the command, and the models of a store or of a service behind it."""
