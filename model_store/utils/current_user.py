"""The name of the user who changes a store."""

from __future__ import annotations

import getpass
import os

from model_store.utils.printable import valid_unicode


def current_user() -> str:
    """Return the user's name: LOGNAME or USER of the environment, else the system's; the user id if there is none.

    Bytes that are not UTF-8 are escaped.
    """
    try:
        return valid_unicode(getpass.getuser())
    except (KeyError, OSError):
        return str(os.getuid())
