"""The header `tracestate` of W3C Trace Context, in which tracing systems keep their own data of a trace.

tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE
"""

from __future__ import annotations

import re

MAX_MEMBERS = 32
_NAME = r"[a-z][a-z0-9_*/-]"
_KEY = rf"{_NAME}{{0,255}}|[a-z0-9][a-z0-9_*/-]{{0,240}}@{_NAME}{{0,13}}"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")


def parse_tracestate(text: str) -> str:
    """Return the members of a tracestate without the whitespace and empty members between them; "" if it is invalid.

    It is invalid as a whole if a member is, if a key occurs twice, or with more than `MAX_MEMBERS`
    (https://www.w3.org/TR/trace-context/, section 3.3).
    """
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members[: MAX_MEMBERS + 1]]
    keys = {match[1] for match in found if match is not None}
    return ",".join(members) if len(keys) == len(members) <= MAX_MEMBERS else ""
