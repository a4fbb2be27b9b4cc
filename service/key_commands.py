"""The commands `serve keygen` and `serve keys add | list | revoke`: the API keys of a key file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from model_store.cli import common
from model_store.cli.common import Command, Duration, exit_codes, json_option, verbosity_option
from service.security.api_keys import SCOPES, ApiKey, KeyFileError, append_key, generate_key, read_keys, revoke_keys

_SHOWN_DIGITS = 12  # of a key's hash


class Expiry(click.ParamType[datetime]):
    """A date (midnight UTC), a time with a zone, or a duration from now such as 90d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = datetime.now(UTC)
        try:
            time = datetime.fromisoformat(str(value))
            when: datetime | None = time.replace(tzinfo=UTC) if len(str(value)) == len("2027-01-31") else time
        except ValueError:
            try:
                when = now + Duration().convert(value, param, ctx)
            except (click.BadParameter, OverflowError):
                when = None
        try:
            when = None if when is None or when.tzinfo is None else when.astimezone(UTC)
        except OverflowError:  # beyond the years 1 to 9999 in UTC
            when = None
        if when is None:
            expected = "expected a duration such as 90d, a date such as 2027-01-31, or a time such as"
            self.fail(f"{expected} 2027-01-31T12:00:00Z; found {value!r}", param, ctx)
        if when <= now:
            self.fail(f"expected a time in the future, found {value!r}", param, ctx)
        return when.replace(microsecond=0)


def _file_option(*, required: bool, description: str) -> Callable[[Command], Command]:
    return click.option(
        "--file",
        "file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SERVE_KEYS_FILE",
        show_envvar=True,
        required=required,
        help=description,
    )


@click.group("keys", cls=common.CommandGroup)
def keys() -> None:
    """Add, list and revoke the API keys of a key file.

    A running service reads a changed file within a second.
    """


@keys.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=["predict"],
    show_default=True,
    help="Scope of the key; repeatable.",
)
@click.option(
    "--expires",
    type=Expiry(),
    metavar="TIME",
    help="When the key expires: 90d, 2027-01-31 or 2027-01-31T12:00:00Z.  [default: never]",
)
@_file_option(required=False, description="Key file to add the key to; without one, the line for it is printed.")
@verbosity_option
@exit_codes({KeyFileError: 2})
def add(name: str, scopes: tuple[str, ...], expires: datetime | None, file: Path | None) -> None:
    """Make an API key called NAME.

    The key is printed once and not stored: the file holds its hash. A running service accepts it within a second.
    `serve keygen` and `serve keys add` are the same command.
    """
    secret, key = generate_key(name, scopes, expires)
    if file is None:
        common.print_note(f"Line for the key file:  {key}")
    else:
        append_key(file, key)
        until = "" if expires is None else f", until {expires:%Y-%m-%d %H:%M:%S} UTC"
        common.print_note(f"Added {name} to {file}{until}. The key is shown only once:")
    click.echo(secret)


@keys.command("list")
@_file_option(required=True, description="The key file.")
@json_option
@verbosity_option
@exit_codes({KeyFileError: 2})
def list_keys(file: Path, as_json: bool) -> None:
    """List the keys with their scopes, expiry and status."""
    now = datetime.now(UTC)
    found = read_keys(file)
    if as_json:
        common.print_json([_key_data(key, now) for key in found])
        return
    rows = [("name", "scopes", "SHA-256", "expires (UTC)", "status")]
    for key in found:
        expires = f"{key.expires:%Y-%m-%d %H:%M:%S}" if key.expires else "never"
        rows.append((key.name, ",".join(key.scopes), key.digest.hex()[:_SHOWN_DIGITS], expires, key.status(now)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@keys.command("revoke")
@click.argument("name")
@click.option(
    "--key",
    "digest_prefix",
    metavar="SHA-256",
    default="",
    help="Only the key whose hash begins with this; `serve keys list` shows it.",
)
@_file_option(required=True, description="The key file.")
@json_option
@verbosity_option
@exit_codes({KeyFileError: 2})
def revoke(name: str, digest_prefix: str, file: Path, as_json: bool) -> None:
    """Revoke all keys called NAME, or one of them.

    A running service rejects them within a second. Their lines stay in the file, marked as revoked.
    """
    now = datetime.now(UTC)
    revoked = revoke_keys(file, name, digest_prefix.lower().removeprefix("sha256:"), now)
    if as_json:
        common.print_json({"name": name, "revoked": [key.digest.hex() for key in revoked]})
    elif revoked:
        common.print_note(f"Revoked {len(revoked)} key{'s' * (len(revoked) > 1)} of {name} in {file}.")
    else:
        common.print_note(f"The keys of {name} in {file} were revoked before.")


def _key_data(key: ApiKey, now: datetime) -> dict[str, Any]:
    return {
        "name": key.name,
        "scopes": list(key.scopes),
        "sha256": key.digest.hex(),
        "expires": key.expires and key.expires.isoformat(),
        "revoked": key.revoked and key.revoked.isoformat(),
        "active": key.is_active(now),
    }
