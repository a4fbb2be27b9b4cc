"""The HTTP server below Flask: a gunicorn worker class and its parts."""
