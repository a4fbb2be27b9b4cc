"""The models in memory, kept in sync with the store."""
