"""The signature of a model: its columns, outputs and row parser."""
