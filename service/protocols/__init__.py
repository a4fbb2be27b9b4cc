"""Codecs of the request and response formats, without Flask."""
