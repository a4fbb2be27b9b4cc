"""The texts that were rendered last, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class RecentTexts:
    """At most `max_texts` texts, of `max_bytes` of UTF-8 together; the least recently used ones leave.

    Any thread may use it.
    """

    def __init__(self, max_texts: int, max_bytes: int) -> None:
        self._max_texts, self._max_bytes = max_texts, max_bytes
        self._texts: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> str | None:
        with self._lock:
            if key not in self._texts:
                return None
            self._texts.move_to_end(key)
            return self._texts[key].decode()

    def put(self, key: Hashable, text: str) -> None:
        """Keep a text, unless it alone is larger than all may be."""
        data = text.encode()
        with self._lock:
            self._size -= len(self._texts.pop(key, b""))
            if len(data) > self._max_bytes:
                return
            self._texts[key] = data
            self._size += len(data)
            while len(self._texts) > self._max_texts or self._size > self._max_bytes:
                self._size -= len(self._texts.popitem(last=False)[1])
