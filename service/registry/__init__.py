"""The models in memory, kept in step with the store."""
