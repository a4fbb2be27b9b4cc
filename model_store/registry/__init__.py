"""Versions, aliases, signatures and promotion gates."""
