"""`models report`: write the HTML report of a version."""

from __future__ import annotations

import click

from model_store.cli.common import open_output, print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.registry.store import open_store


@command("report")
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help='File to write; "-" is standard output.  [default: NAME-VERSION.html]',
)
def report(model: str, output: str | None, store: str, as_json: bool) -> None:
    """Write the report of a version as one HTML page.

    It shows the learning curves, the errors, the calibration and the importance of each input.
    """
    from model_store.report.page import render  # noqa: PLC0415 - other commands start without it

    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    version, loaded = opened.load(name, number)
    page = render(loaded, f"{name}/{number}", version.digest)
    target = output or f"{name}-{number}.html"
    with open_output(target) as file:
        file.write(page)
    if as_json and target != "-":
        print_json({"name": name, "version": number, "report": target})
    elif target != "-":
        print_note(f"Wrote {target}. Open it in a browser.")
