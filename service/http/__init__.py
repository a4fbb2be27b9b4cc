"""Request bodies, response headers and errors over HTTP."""
