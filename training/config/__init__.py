"""The job file: its schema, defaults and settings."""
