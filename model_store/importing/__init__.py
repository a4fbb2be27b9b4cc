"""Importing models of other frameworks: a file becomes a network of our layers, a signature and golden rows."""
