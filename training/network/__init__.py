"""The network of a job: its specification, from settings and signature, and its modules, before and after training."""
