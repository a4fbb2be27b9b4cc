"""The name of the user who changes a store."""

from __future__ import annotations

import getpass
import os


def current_user() -> str:
    """Return the user's name: LOGNAME or USER of the environment, else the system's; the user id if there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
