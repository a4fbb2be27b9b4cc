"""`models`: look at what the store holds, move aliases, try a model.

A reference is `penguins`, `penguins/3` or `penguins/champion`; alone, a name means the version that a request without
one is answered by.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import click

from model_store.artifact import npz
from model_store.cli import alias as alias_commands
from model_store.cli import predict, replay, tables
from model_store.cli.common import exit_codes, json_option, note, print_json, verbosity_option
from model_store.cli.group import command, main, resolved
from model_store.cli.terminal import stdout
from model_store.errors import ArtifactError, ModelStoreError
from model_store.evaluation.compare import compare
from model_store.evaluation.record import Record
from model_store.registry.store import Store, open_store
from model_store.report.page import render
from model_store.schema.signature_json import read_signature
from model_store.storage import conformance

__all__ = ["alias_commands", "main", "predict", "replay"]


class Duration(click.ParamType[timedelta]):
    """30s, 15m, 24h or 7d."""

    name = "duration"
    UNITS: ClassVar = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        number, unit = str(value)[:-1], self.UNITS.get(str(value)[-1:])
        if unit is None or not (number.isascii() and number.isdigit() and len(number) < 8):
            self.fail(f"expected a duration such as 30s, 15m, 24h or 7d; found {value!r}", param, ctx)
        return timedelta(**{unit: int(number)})


@command("init")
def init(store: str, as_json: bool) -> None:
    """Prove that a place may hold a store, before anything is in it.

    Writers race for objects, each of which must have one winner. A bucket whose server only pretends to honour
    conditional writes is refused.
    """
    opened = open_store(store)
    if "://" in store:
        note(f"{conformance.WRITERS} writers race {conformance.ROUNDS} times; in a bucket that may take a minute.")
    conformance.prove(opened.objects)
    if as_json:
        print_json({"store": store, "races": conformance.ROUNDS, "writers": conformance.WRITERS})
    else:
        note(
            f"{store} may hold models: {conformance.WRITERS} writers raced {conformance.ROUNDS} times, "
            "and one won each time."
        )


@command("list")
def list_models(store: str, as_json: bool) -> None:
    """List the models."""
    opened = open_store(store)
    found = [_summary(opened, name, state) for name, state in opened.state().items()]
    if as_json:
        print_json(found)
        return
    made = tables.table("model", ">serves", "versions", "aliases", "description")
    for model in found:
        aliases = ", ".join(f"{alias} → {number}" for alias, number in model["aliases"].items())
        words = model["error"] or model["description"]
        made.add_row(model["name"], str(model["serves"]), _ranges(model["versions"]), aliases, words)
    tables.show(made)
    if not found:
        note(f"No models in {store} yet: `train` a job to publish one.")


@command("show")
@click.argument("model", metavar="MODEL")
def show(model: str, store: str, as_json: bool) -> None:
    """Show all about a version: rows, answers, layers, metrics, job."""
    opened = open_store(store)
    name, number = resolved(opened, model)
    version, manifest = opened.manifest(name, number)
    aliases = [alias for alias, version in opened.aliases(name).items() if version == number]
    signed_by = opened.signed_by(name, number)
    file_size, page = opened.size(name, number), opened.report(name, number)
    if as_json:
        about = {
            "name": name,
            "version": number,
            "digest": version.digest,
            "bytes": file_size,
            "path": version.location,
        }
        print_json({**about, "report": page, "aliases": aliases, "signed_by": signed_by, "manifest": manifest})
        return
    try:
        signature = read_signature(manifest["signature"])
        network = npz.outline(manifest)
    except ValueError as e:
        raise ArtifactError(f"{version.location}: {e}") from e
    training = signature.ordered(manifest["training"])
    stdout.print(f"{name}/{number}", style="bold")
    head = [
        ("description", manifest["description"]),
        ("aliases", aliases),
        ("answers", tables.output(signature)),
        ("digest", version.digest),
        ("signed by", signed_by),
        ("size", tables.size(file_size)),
        ("file", version.location),
        ("report", page),
        ("numbers", manifest["dtype"]),
        ("producer", manifest["producer"]),
    ]
    tables.show(tables.facts(head))
    tables.show(tables.inputs(signature))
    tables.show(tables.layers(network))
    titles = {"metrics": "Metrics", "baseline": "Baseline", "data": "Data", "split": "Split", "job": "Job"}
    parts = {key: tables.record(training.get(key), title) for key, title in titles.items()}
    parts["baseline"] += tables.diagnostics(Record.of(training))
    for part in chain.from_iterable(parts.values()):
        tables.show(part)
    rest = {key: value for key, value in training.items() if key not in {*titles, "diagnostics"}}
    for part in tables.record(rest, "Training"):
        tables.show(part)


@command("report")
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help='The file to write, "-" for standard output; else NAME-VERSION.html.',
)
def report(model: str, output: str | None, store: str, as_json: bool) -> None:
    """Write a version's report, one HTML page.

    How it learned, how it errs, and what decides its answers.
    """
    opened = open_store(store)
    name, number = resolved(opened, model)
    version, loaded = opened.load(name, number)
    page = render(loaded, f"{name}/{number}", version.digest)
    target = output or f"{name}-{number}.html"
    try:
        with click.open_file(target, "w", encoding="utf-8", atomic=target != "-") as file:
            file.write(page)
    except OSError as e:
        raise click.UsageError(f"{target}: cannot be written: {e.strerror or e}") from e
    if as_json and target != "-":
        print_json({"name": name, "version": number, "report": target})
    elif target != "-":
        note(f"Wrote {target}: open it in a browser.")


@command("compare")
@click.argument("first", metavar="MODEL")
@click.argument("second", metavar="OTHER")
def compare_models(first: str, second: str, store: str, as_json: bool) -> None:
    """Say which of two versions is better, and what differs.

    Metrics, rows and answers, layers and job; with the chance that a difference of accuracy is none.
    """
    opened = open_store(store)
    references = [resolved(opened, model) for model in (first, second)]
    names = tuple(f"{name}/{number}" for name, number in references)
    one, other = (opened.manifest(name, number)[1] for name, number in references)
    found = compare((names[0], one), (names[1], other))
    if as_json:
        print_json({"first": names[0], "second": names[1], **found.as_data()})
        return
    stdout.print(found.verdict.words, style="bold", soft_wrap=True)
    if found.same_rows is False:
        stdout.print("They were judged on different rows.")
    stdout.print()
    for part in tables.comparison(found, (names[0], names[1])):
        tables.show(part)


@command("verify")
@click.argument("model", metavar="[MODEL]", required=False)
@click.option(
    "--key",
    "key_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A public key that must have signed, too; of several, one.",
)
def verify(model: str | None, key_files: tuple[Path, ...], store: str, as_json: bool) -> None:
    """Check files byte by byte, and their golden answers.

    MODEL is one version, a name for all its versions, or left out for the whole store.
    """
    keys = [_signing().public_key(path) for path in key_files]
    opened = open_store(store)
    if model is None:
        expected = [(name, number) for name in opened.names() for number in opened.versions(name)]
    elif "/" in model:
        expected = [resolved(opened, model)]
    else:
        expected = [(model, number) for number in opened.versions(model)]
    found = [_verified(opened, name, number, keys) for name, number in expected]
    if as_json:
        print_json(found)
    else:
        for one in found:
            stdout.print(f"{one['name']}/{one['version']}", end="  ")
            stdout.print(one["verdict"], style="green" if one["ok"] else "bold red", end="  ")
            stdout.print(one["error"] or one["digest"], soft_wrap=True)
    if not all(one["ok"] for one in found):
        sys.exit(5)


@main.command("keygen")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@verbosity_option
@exit_codes()
def keygen(file: Path, as_json: bool) -> None:
    """Make a key to sign models with.

    FILE is yours alone, FILE.pub is for whoever trusts you.
    """
    signing = _signing()
    key, public = signing.fingerprint(signing.generate(file)), signing.public_path(file)
    if as_json:
        print_json({"key": key, "private": str(file), "public": str(public)})
    else:
        note(f"Made key {key}: {file} signs, keep it to yourself; {public} verifies.")


@command("sign")
@click.argument("model", metavar="MODEL")
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="The private key.")
def sign(model: str, key_file: Path, store: str, as_json: bool) -> None:
    """Vouch for a version: sign its name and digest."""
    signing = _signing()
    key = signing.private_key(key_file)
    opened = open_store(store)
    name, number = resolved(opened, model)
    version, loaded = opened.load(name, number)
    loaded.check_golden()
    by = signing.fingerprint(key.public_key())
    added = opened.add_signature(name, number, by, signing.sign(key, name, version.digest))
    if as_json:
        print_json({"name": name, "version": number, "digest": version.digest, "key": by, "added": added})
    else:
        note(f"{name}/{number} is signed by {by}{'' if added else ' already'}: {version.digest}")


@command("rm")
@click.argument("model", metavar="NAME/VERSION")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(model: str, yes: bool, store: str, as_json: bool) -> None:
    """Remove a version for good; its number stays used."""
    if "/" not in model:
        raise click.UsageError(f"Which version of {model}? Name it: {model}/1.")
    opened = open_store(store)
    name, number = resolved(opened, model)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"This removes {name}/{number} for good; confirm it with --yes.")
        click.confirm(f"Remove {name}/{number} for good?", abort=True, err=True)
    opened.remove(name, number)
    if as_json:
        print_json({"name": name, "removed": number})
    else:
        note(f"Removed {name}/{number}.")


@command("gc")
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="Spare what was left so lately.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
def collect_garbage(grace: timedelta, dry_run: bool, store: str, as_json: bool) -> None:
    """Delete drafts and files that killed processes left.

    The files are those of versions that are not there. No version, alias or history is touched. It may run while others
    publish.
    """
    opened = open_store(store)
    found = opened.leftovers(now=datetime.now(UTC), grace=grace)
    for leftover in [] if dry_run else found:
        opened.collect(leftover)
    if as_json:
        print_json([{**vars(leftover), "since": leftover.since.isoformat()} for leftover in found])
        return
    if found:
        tables.show(tables.leftovers(found))
    total = tables.size(sum(leftover.size for leftover in found))
    note(
        f"{'Would delete' if dry_run else 'Deleted'} {len(found)} objects of {total}."
        if found
        else "Nothing is left over."
    )


def _summary(store: Store, name: str, state: dict[str, Any]) -> dict[str, Any]:
    """One model in a list. A damaged file or alias is told beside the others, which are none the worse."""
    serves, description, error = None, None, None
    try:
        serves = store.resolve(name)
        description = store.manifest(name, serves)[1]["description"]
    except ModelStoreError as e:
        error = str(e)
    error = error or "; ".join(state["unreadable"].values()) or None
    versions, aliases = list(state["versions"]), state["aliases"]
    about = {"name": name, "serves": serves, "versions": versions, "aliases": aliases}
    return {**about, "description": description, "error": error}


def _signing() -> Any:
    """Loaded when it is asked for: it takes 40 ms, and a package of its own. TrustError where that is missing."""
    from model_store.registry import signing  # noqa: PLC0415

    return signing


def _verified(store: Store, name: str, number: int, keys: Sequence[Any]) -> dict[str, Any]:
    verdict, digest, signed_by, error = "damaged", None, None, None
    try:
        version, model = store.load(name, number)
        digest = version.digest
        model.check_golden()
        verdict = "ok"
        if keys:
            verdict = "untrusted"
            signed_by = _signing().check(keys, name, number, digest, partial(store.signature, name, number))
            verdict = "ok"
    except ModelStoreError as e:
        error = str(e)
    about = {"name": name, "version": number, "ok": error is None, "verdict": verdict, "digest": digest}
    return {**about, "signed_by": signed_by, "error": error}


def _ranges(numbers: list[int]) -> str:
    """1-3, 5: what is there, with its gaps."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
