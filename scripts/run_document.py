"""Run the code blocks of a Markdown page and compare what they print with what the page shows.

    python -m scripts.run_document README.md docs/tutorial.md            # shows differences
    python -m scripts.run_document --update README.md docs/tutorial.md   # writes the output into the pages

A page is one session, in an empty folder that has a copy of examples/:

- console   `$ command` and its output. A command ending in & runs until the page ends or `kill %1`.
- python    runs in a process of its own; a `text` block after it shows its output.
- toml, json  has to be valid.

In the output a line `...` stands for any lines and `...` inside a line for any text. Numbers with decimals are compared
with a tolerance, since another processor rounds differently; numbers of epochs, digests, API keys, dates and times only
have to look alike. JSON may be shown over several lines.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PORT = 8000  # the one that pages name; a session uses a free one
ELSEWHERE = re.compile(
    r"(make|docker|git|pip|node|npm|npx|openapi-python-client|sh examples/fetch_mnist.sh|curl --cacert)\b"
)  # commands that other tests run, or that need a network

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(
    r"(?P<any>\.\.\.)"
    r"|(?P<date>\b\d{4}-\d\d-\d\d\b)|(?P<time>\b\d\d:\d\d(?::\d\d)?\b)"
    r"|(?P<key>\bfp_[\w-]{43})"
    r"|(?P<digest>\b[0-9a-f]{12,64}\b)"
    r"|(?P<count>\b\d+(?= epochs| of \d+ test rows)|(?<=epoch )\d+\b)"
    r"|(?P<decimal>-?\b\d+\.\d+(?:e[+-]?\d+)?)"
    r"|(?P<space>\s+)"
)
_PATTERNS = {
    "any": ".*",
    "date": r"\d{4}-\d\d-\d\d",
    "time": r"\d\d:\d\d(?::\d\d)?",
    "key": r"fp_[\w-]{43}",
    "digest": "[0-9a-f]{12,64}",
    "count": r"\d+",
    "decimal": r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)",
    "space": r"\s+",
}


@dataclass(frozen=True)
class Step:
    """One command or program of a page. `start` and `end` are where the page shows its output."""

    language: str
    code: str
    output: str
    start: int
    end: int


def steps(page: str) -> Iterator[Step]:
    """Yield what a page runs, in order."""
    blocks = [*_BLOCK.finditer(page)]
    for i, block in enumerate(blocks):
        language, text, start = block[1], block[2], block.start(2)
        if language == "console":
            yield from _commands(text, start)
        elif language == "python":
            shown = blocks[i + 1] if i + 1 < len(blocks) and blocks[i + 1][1] == "text" else None
            if shown is not None and page[block.end() : shown.start()].strip():
                shown = None
            span = (block.end(), block.end()) if shown is None else shown.span(2)
            yield Step(language, text, page[slice(*span)], *span)
        elif language not in {"text"}:
            yield Step(language, text, "", block.end(), block.end())


def _commands(text: str, start: int) -> Iterator[Step]:
    lines = text.splitlines(keepends=True)
    i, place = 0, start
    while i < len(lines):
        command = lines[i]
        if not command.startswith("$ "):
            raise ValueError(f"expected a command after '$ ', found {command!r}")
        i += 1
        while _continues(command[2:]):
            command += lines[i]
            i += 1
        place += len(command)
        output = ""
        while i < len(lines) and not lines[i].startswith("$ "):
            output += lines[i]
            i += 1
        yield Step("console", command[2:].strip(), output, place, place + len(output))
        place += len(output)


def _continues(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return command.rstrip("\n").endswith("\\")


@dataclass
class Session:
    """A shell in a folder of its own, whose background commands end with it."""

    folder: Path
    port: int = 0
    background: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "examples", self.folder / "examples", ignore=shutil.ignore_patterns("mnist"))
        self.cwd = self.folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        kept = ("LANG", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        self.env = {name: os.environ[name] for name in kept if name in os.environ} | {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "USER": "ada",
            "COLUMNS": "100",
            "SERVE_PORT": str(self.port),
            "SERVE_POLL_SECONDS": "0.2",
        }

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        for process, _log in self.background:
            self._stop(process)

    def run(self, step: Step) -> str | None:
        """Return what a step prints, None if other tests cover it. AssertionError if it cannot run at all."""
        if step.language == "python":
            found = self._print([sys.executable, "-c", self._here(step.code)], check=True)
            return found if step.start != step.end else None
        if step.language == "json":
            json.loads(step.code)
            return None
        if step.language == "toml":
            tomllib.loads(step.code)
            return None
        if step.language == "nginx":  # tests/edge runs such a proxy
            return None
        if step.language != "console":
            raise AssertionError(f"a block of the language {step.language!r} is not run by anything: {step.code!r}")
        command = step.code
        if ELSEWHERE.match(command):
            return None
        if command.startswith("kill "):
            self._stop(self.background[-1][0])
            return ""
        if re.sub(r"\s+#.*", "", command).endswith("&"):
            return self._start(command)
        if command.startswith("curl "):
            command = f"curl -s {command[5:]}"
        return self._print(["/bin/bash", "-c", f"{self._here(command)}\ncode=$?; pwd > {self.folder}/.cwd; exit $code"])

    def _print(self, command: list[str], *, check: bool = False) -> str:
        done = subprocess.run(
            command,
            cwd=self.cwd,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=300,
        )
        if (moved := self.folder / ".cwd").exists():
            self.cwd = Path(moved.read_text().strip())
        if check and done.returncode:
            raise AssertionError(f"{command[-1]}\n{done.stdout.decode()}")
        return self._there(done.stdout.decode())

    def _start(self, command: str) -> str:
        log = self.folder / f".log-{len(self.background)}"
        command = "exec env " + self._here(re.sub(r"\s*&\s*(#.*)?$", "", command))
        with log.open("wb") as out:
            process = subprocess.Popen(["/bin/bash", "-c", command], cwd=self.cwd, env=self.env, stdout=out, stderr=out)
        self.background.append((process, log))
        for _ in range(600):
            time.sleep(0.1)
            text = log.read_text()
            if "Ctrl-C" in text or process.poll() is not None:
                break
        return self._there(log.read_text())

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _here(self, text: str) -> str:
        return text.replace(f":{PORT}", f":{self.port}")

    def _there(self, text: str) -> str:
        return text.replace(f":{self.port}", f":{PORT}").replace(str(self.folder), "/home/ada")


def difference(shown: str, found: str) -> str | None:
    """Say where the output that a page shows differs from what was found; None if it does not."""
    if _same_json(shown, found):
        return None
    wanted, lines = _lines(shown), _lines(found)
    parts: list[list[str]] = [[]]
    for line in wanted:
        if line.strip() == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    place = 0
    for i, part in enumerate(parts):
        if i == len(parts) - 1 and i > 0 and part:
            place = max(place, len(lines) - len(part))  # nothing follows the last lines
        places = [place] if i == 0 else range(place, len(lines) - len(part) + 1)
        hit = next((k for k in places if _alike_all(part, lines[k : k + len(part)])), None)
        if hit is None or (len(parts) == 1 and len(part) != len(lines)):
            return "\n".join([*difflib.unified_diff(wanted, lines, "shown", "found", lineterm="", n=1)][:40])
        place = hit + len(part)
    return None


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _alike_all(shown: list[str], found: list[str]) -> bool:
    return len(shown) == len(found) and all(map(alike, shown, found))


def alike(shown: str, found: str) -> bool:
    """Whether a line says the same, but for rounding, digests, times, and what is left out as `...`."""
    pattern, numbers, place = "", [], 0
    for token in _TOKEN.finditer(shown):
        kind = str(token.lastgroup)
        pattern += re.escape(shown[place : token.start()]) + _PATTERNS[kind]
        if kind == "decimal":
            numbers.append(float(token[0]))
        place = token.end()
    matched = re.fullmatch(pattern + re.escape(shown[place:]), found)
    return matched is not None and all(map(near, numbers, map(float, matched.groups())))


def near(shown: float, found: float) -> bool:
    return abs(shown - found) <= max(0.02, 0.04 * abs(shown))


def _same_json(shown: str, found: str) -> bool:
    try:
        return not [*_unlike(_json(shown), json.loads(found))]
    except ValueError:
        return False


def _json(shown: str) -> Any:
    return json.loads(re.sub(r"\{\.\.\.\}|\[\.\.\.\]", '"..."', shown.replace("\n", " ")))


def _unlike(shown: Any, found: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the values that differ, as shown and as found."""
    if isinstance(shown, dict) and isinstance(found, dict) and shown.keys() == found.keys():
        for key in shown:
            yield from _unlike(shown[key], found[key])
    elif isinstance(shown, list) and isinstance(found, list) and len(shown) == len(found):
        for one, other in zip(shown, found, strict=True):
            yield from _unlike(one, other)
    elif isinstance(shown, float) and isinstance(found, (int, float)):
        if not near(shown, found):
            yield shown, found
    elif isinstance(shown, str) and isinstance(found, str):
        if not alike(shown, found):
            yield shown, found
    elif shown not in ("...", found):
        yield shown, found


def updated(shown: str, found: str) -> str:
    """The output to show: all of it, or where lines are left out as `...`, the lines most like those shown."""
    try:
        for one, other in _unlike(_json(shown), json.loads(found)):
            shown = shown.replace(json.dumps(one), json.dumps(other))
    except ValueError:
        pass
    else:
        return shown if _same_json(shown, found) else found
    lines = _lines(found)
    if "..." not in [line.strip() for line in shown.splitlines()]:
        return "".join(f"{line}\n" for line in lines)
    result: list[str] = []
    place = 0
    for line in _lines(shown):
        if line.strip() == "...":
            result.append(line)
        elif place < len(lines):
            free = bool(result) and result[-1].strip() == "..."
            close = max(range(place, len(lines)), key=lambda k: _likeness(line, lines[k])) if free else place
            result.append(line if alike(line, lines[close]) else lines[close])
            place = close + 1
    return "".join(f"{line}\n" for line in result)


def _likeness(line: str, other: str) -> float:
    if other.startswith(line.rstrip(":. ")):
        return 2.0
    return 3.0 if alike(line, other) else difflib.SequenceMatcher(None, line, other).ratio()


def run(path: Path, folder: Path, *, update: bool = False) -> list[str]:
    """Run a page; return what differs, command by command."""
    page, changes, faults = path.read_text(encoding="utf-8"), [], []
    with Session(folder) as session:
        for step in steps(page):
            found = session.run(step)
            if found is None:
                continue
            wrong = difference(step.output, found)
            for _ in range(20):  # a service follows its store within a second
                if wrong is None or not step.code.startswith("curl"):
                    break
                time.sleep(0.25)
                found = session.run(step) or ""
                wrong = difference(step.output, found)
            if wrong is not None:
                faults.append(f"{path.name}: {step.code}\n{wrong}")
                changes.append((step, updated(step.output, found)))
    if update:
        for step, text in reversed(changes):
            page = page[: step.start] + text + page[step.end :]
        path.write_text(page, encoding="utf-8")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--update", action="store_true", help="write what was found into the pages")
    options = parser.parse_args()
    count = 0
    for page in options.pages:
        with tempfile.TemporaryDirectory() as folder:
            for fault in run(page, Path(folder), update=options.update):
                count += 1
                print(fault, end="\n\n")
    return int(count > 0 and not options.update)


if __name__ == "__main__":
    sys.exit(main())
