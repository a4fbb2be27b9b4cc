"""`models card`: write the model card of a version."""

from __future__ import annotations

import json
from pathlib import Path

import click

from model_store.cli.common import open_output, print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.export.export import write_files
from model_store.registry.store import open_store
from model_store.utils.printable import printable


@command("card")
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help='File to write; "-" is standard output.  [default: standard output]',
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "json"]),
    help="The form of the card.  [default: json for a file whose name ends with .json and with --json, else markdown]",
)
@click.option(
    "--force", is_flag=True, help="Overwrite a file that exists with another content, such as an edited card."
)
def card(model: str, output: str | None, form: str | None, force: bool, store: str, as_json: bool) -> None:
    """Write the model card of a version.

    It says what the model is for, how good it is, for which rows, and what it was trained on, as far as the record of
    the version says so. Lines that begin with "To be written" need a person.
    """
    from model_store.report.card_markdown import render_card  # noqa: PLC0415 - other commands start without it
    from model_store.report.model_card import make_card  # noqa: PLC0415

    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    version, loaded = opened.load(name, number)
    facts = {
        "digest": version.digest,
        "published": opened.publication(name, number).as_dict(),
        "aliases": [alias for alias, found in opened.aliases(name).items() if found == number],
        "signed_by": opened.signing_keys(name, number),
        "bytes": opened.size_bytes(name, number),
    }
    found = make_card(loaded, name, number, facts)
    to_file = output not in (None, "-")
    if form is None:
        form = "json" if (output or "").endswith(".json") or (as_json and not to_file) else "markdown"
    if form == "json" and not to_file:
        print_json(found)
        return
    text = render_card(found, loaded.signature.inputs)
    if form == "json":
        text = printable(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False), keep="\n") + "\n"
    if output is None or output == "-":
        with open_output("-") as file:
            file.write(text)
        return
    path = Path(output)
    replaced = path.is_file() and path.read_bytes() != text.encode()
    write_files({path: text.encode()}, force=force)
    if as_json:
        print_json({"name": name, "version": number, "card": output, "to_write": list(found["to_write"])})
        return
    print_note(
        f"{'Replaced' if replaced else 'Wrote'} {output}. {len(found['to_write'])} lines are to be written by a person."
    )
