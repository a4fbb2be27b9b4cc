"""The peers of the training benchmark, each a process of its own in an environment of its own."""
