"""`tally key create|import|list|revoke`: API keys. A secret is shown once, or never, and kept as its SHA-256."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from adapters import answers
from adapters.cli.framework import Context, Result, command, instant_text, table
from adapters.cli.options import CustomerOption, OperatorOption, read_time
from adapters.data_folder import now
from adapters.key_file import read_key_file
from adapters.postgres import keys
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.key_import import import_keys
from adapters.site_files.scalars import ID, WrongTextError
from metering.identity import hash_secret, id_text, new_id, new_secret
from metering.refusal import Refusal


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="API keys of customers and of people's roles.")
    app.add_typer(group, name="key")

    @command(group, "create", path="key create", example="tally key create --customer acme --project chatbot")
    async def create(
        context: Context,
        customer: CustomerOption = None,
        project: Annotated[str | None, typer.Option(metavar="P", help="A project of the customer.")] = None,
        role: Annotated[str | None, typer.Option(help=f"For the API: {', '.join(keys.ROLES)}.")] = None,
        operator: OperatorOption = None,
        expires: Annotated[
            str | None, typer.Option(metavar="T", help="When it ends. Default: never.")
        ] = None,
    ) -> Result:
        """Make a key: a customer's, for the sidecar, or a role's, for the API. The secret is shown this once."""
        _check_kind(customer, project, role)
        until = read_time(expires, "--expires")
        if until is not None and until <= now():
            raise Refusal(
                "expires_in_the_past",
                f"the key would have ended at {expires}",
                where="--expires",
                remedy="a time that is still to come",
            )
        secret, key = new_secret(), UUID(bytes=new_id())
        async with context.database() as database:
            if customer is not None:
                owner = await _operator_of(database, customer, operator)
                async with database.app(owner) as connection:
                    await keys.create_customer_key(
                        connection,
                        owner,
                        key=key,
                        secret_sha256=hash_secret(secret),
                        customer=customer,
                        project=project,
                        now=now(),
                        expires_at=until,
                    )
            else:
                assert role is not None
                owner = (
                    INSTALLATION
                    if operator is None
                    else (await answers.named_operators(database, operator))[0]
                )
                async with database.app(owner) as connection:
                    await keys.create_role_key(
                        connection,
                        owner,
                        key=key,
                        secret_sha256=hash_secret(secret),
                        role=role,
                        now=now(),
                        expires_at=until,
                    )
        document = {
            "id": id_text(key.bytes),
            "secret": secret,
            "customer": customer,
            "project": project,
            "role": role,
        }
        context.say("The secret is not shown again. Running sidecars know it within two seconds.")
        return Result(document, [f"id      {document['id']}", f"secret  {secret}"])

    @command(group, "import", path="key import", example="tally key import keys.csv")
    async def import_(
        context: Context,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or JSON Lines.")],
    ) -> Result:
        """Take over secrets that customers have already: customer, project, secret, expires. All of them or none.

        Only their hashes are kept; remove the file afterwards. The same file again changes nothing.
        """
        read = read_key_file(file, now())
        async with context.database() as database:
            owners = {
                customer: owner
                for owner in await database.operators()
                for customer in (await answers.facts_of(database, owner)).customers
            }
            imported = await import_keys(database, read, owners, now())
        rows = [
            {
                "line": each.given.line,
                "id": str(each.id),
                "customer": each.given.customer,
                "project": each.given.project,
                "expires_at": None if each.given.expires_at is None else instant_text(each.given.expires_at),
                "state": "created" if each.created else "unchanged",
            }
            for each in imported
        ]
        created = sum(each.created for each in imported)
        unchanged = len(imported) - created
        context.say("Running sidecars know them within two seconds. The file holds secrets: remove it.")
        return Result(
            {"created": created, "unchanged": unchanged, "keys": rows},
            f"{created} created, {unchanged} unchanged",
        )

    @command(group, "list", path="key list", example="tally key list")
    async def list_(context: Context, operator: OperatorOption = None) -> Result:
        """List keys, revoked ones too; never their secrets."""
        found: list[keys.ApiKey] = []
        async with context.database() as database:
            owners = await answers.named_operators(database, operator)
            for owner in [*owners, *([INSTALLATION] if operator is None else [])]:
                async with database.app(owner) as connection:
                    found += await keys.list_keys(connection, owner)
        rows = [_row(key) for key in found]
        columns = ("id", "operator", "customer", "project", "role", "state")
        return Result({"keys": rows}, table(None, columns, [[row[c] for c in columns] for row in rows]))

    @command(
        group, "revoke", path="key revoke", example="tally key revoke 8d7f9c2e-0000-4000-8000-000000000000"
    )
    async def revoke(
        context: Context,
        id: Annotated[str, typer.Argument(metavar="ID", help="As `tally key list` shows it.")],
    ) -> Result:
        """End a key: sidecars refuse it within seconds."""
        try:
            key = UUID(id)
        except ValueError:
            raise Refusal(
                "unknown_key", f"no such key: {id}", where="ID", remedy="`tally key list` shows ids"
            ) from None
        async with context.database() as database:
            for owner in [*await database.operators(), INSTALLATION]:
                async with database.app(owner) as connection:
                    if any(each.id == key for each in await keys.list_keys(connection, owner)):
                        row = _row(await keys.revoke_key(connection, owner, key, now()))
                        return Result(row, f"{id} revoked")
        raise Refusal("unknown_key", f"no such key: {id}", where="ID", remedy="`tally key list` shows ids")


def _check_kind(customer: str | None, project: str | None, role: str | None) -> None:
    if (customer is None) == (role is None):
        raise Refusal(
            "which_key", "a key is a customer's or a role's", remedy="--customer C, or --role finance"
        )
    if role is not None and role not in keys.ROLES:
        raise Refusal(
            "unknown_role", f"no such role: {role}", where="--role", remedy=f"one of: {', '.join(keys.ROLES)}"
        )
    if project is not None:
        try:
            ID.read(project)
        except WrongTextError as wrong:
            raise Refusal(
                "bad_id", f"{project!r} {wrong}", where="--project", remedy=f"allowed: {ID.allowed}"
            ) from None
    if project is not None and customer is None:
        raise Refusal(
            "which_key", "a project belongs to a customer", where="--project", remedy="add --customer C"
        )


async def _operator_of(database: Database, customer: str, operator: str | None) -> str:
    """Whose customer it is; ids of customers are unique in an installation. Refusals: unknown_customer."""
    for owner in await answers.named_operators(database, operator):
        if customer in (await answers.facts_of(database, owner)).customers:
            return owner
    raise Refusal(
        "unknown_customer",
        f"no such customer: {customer}",
        where="--customer",
        remedy="declare it in a site file",
    )


def _row(key: keys.ApiKey) -> dict[str, object]:
    revoked = key.revoked_at is not None
    state = "revoked" if revoked else "valid" if key.holds(now()) else "expired"
    return {
        "id": str(key.id),
        "operator": key.operator,
        "customer": key.customer,
        "project": key.project,
        "role": key.role,
        "created_at": instant_text(key.created_at),
        "expires_at": instant_text(key.expires_at) if key.expires_at else None,
        "state": state,
    }
