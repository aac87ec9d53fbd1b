"""The OpenAPI document: valid, current, true of a running authority; no request gets in without it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from sealcast.authority.admins import AdminRole
from sealcast.authority.api.openapi import make_document
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.site import SITE
from sealcast.authority.api.routing import Route, RouteTable
from sealcast.authority.api.schema import Component, JsonSchema, record, text
from sealcast.authority.api.schema import validate as validate_request
from sealcast.authority.api.table import TABLE
from sealcast.device import enroll
from sealcast.errors import UsageError
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.names import Role
from tests.authority.test_command import Command, command, enrol, serving  # noqa: F401

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT = make_document(TABLE)
SCHEMATHESIS_SECONDS = 30


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_the_committed_one_is_current() -> None:
    """Made anew by: sealcast authority openapi > docs/openapi.json."""
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == DOCUMENT


def test_every_request_says_what_a_reader_needs() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            assert operation["x-role"] in list(AdminRole), (method, path)
            statuses = set(operation["responses"])
            assert {"400", "401", "403", "500", "503"} <= statuses, (method, path)
            assert ("415" in statuses) == ("requestBody" in operation)


def test_every_problem_is_somewhere_in_the_document() -> None:
    told = json.dumps(DOCUMENT)
    # These two belong to no request of the table.
    for problem in set(Problem) - {Problem.NO_ROUTE, Problem.METHOD}:
        assert problem.uri in told, problem


def route(**changes: Any) -> Route:
    values: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/things/{thing}",
        "name": "makeThing",
        "role": AdminRole.VIEWER,
        "summary": "make thing",
        "description": "Makes a thing.",
        "answer": SITE,
        "handler": lambda call: None,
        "parameters": {"thing": text("Which.")},
    }
    return Route(**{**values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"description": " "},
        {"summary": ""},
        {"name": ""},
        {"role": None},
        {"role": "viewer"},
        {"answer": Component("Nothing", {})},
        {"method": "TRACE"},
        {"path": "v1/things/{thing}"},
        {"path": "/v1/things/{thing}/"},
        {"parameters": {}},
        {"parameters": {"thing": text("")}},
        {"parameters": {"thing": text("Which.", format="uuid")}},
        {"query": {"x": {"type": "object", "description": "x", "additionalProperties": False}}},
        {"method": "GET", "body": Component("B", {"type": "object", "additionalProperties": False})},
        {"body": Component("B", {"type": "object", "properties": {}})},
        {"body": Component("B", {"type": "string", "pattern": "^a"})},
    ],
    ids=str,
)
def test_a_request_that_says_too_little_cannot_be_registered(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        route(**changes)


def test_no_request_is_there_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        RouteTable([route(), route(name="other", path="/v1/things/{other}", parameters={"other": text("x")})])
    with pytest.raises(ValueError, match="twice"):
        RouteTable([route(), route(path="/v1/more/{thing}")])
    other = dataclasses.replace(SITE, schema={"type": "object", "description": "another"})
    table = RouteTable([route(), route(method="PUT", name="other", answer=other)])
    with pytest.raises(ValueError, match="two components"):
        make_document(table)


@pytest.mark.timeout(300)
def test_a_running_authority_does_what_the_document_says(
    folder: Path,
    tmp_path: Path,
    command: Command,  # noqa: F811
) -> None:
    """Schemathesis, over TLS with a security officer's certificate: no 5xx, no answer that is not told."""
    with serving(folder) as (_, urls):
        # By the names that the document gives as examples.
        assert command("channel", "add", folder, "ward-3/ecg", *_CHANNEL) == 0
        assert command("token", folder, "--device", "monitor-1") == 0
        assert enrol(tmp_path / "monitor-1", folder, urls, command.out.strip()) == 0
        command.drain()
        assert command("admin", "add", folder, "olga", "--role", "security-officer") == 0
        officer = enroll(
            tmp_path / "olga",
            authority_url=urls["authority"],
            roots=parse_pem_certificates((folder / "root.pem").read_bytes()),
            name="olga",
            token=command.out.strip(),
            role=Role.ADMIN,
        )
        ran = subprocess.run(
            [
                *(
                    str(Path(sys.executable).with_name("schemathesis")),
                    "--config-file",
                    _CONFIG,
                    "run",
                    COMMITTED,
                ),
                *("--url", urls["manage"], "--tls-verify", folder / "root.pem"),
                *("--request-cert", officer.certificate_file, "--request-cert-key", officer.key_file),
                *("--phases", "examples,coverage,fuzzing,stateful", "--max-time", str(SCHEMATHESIS_SECONDS)),
                *("--checks", "all", "--seed", "1", "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        print(ran.stdout, ran.stderr)
        assert ran.returncode == 0
        # The log holds whatever was done to it meanwhile.
        assert command("audit", "verify", folder) == 0


_CHANNEL = ("--group", "239.192.0.1", "--port", "5000", "--publish", "monitor-*", "--subscribe", "*")
_CONFIG = Path(__file__).parent / "schemathesis.toml"


@pytest.mark.parametrize(
    ("schema", "cure"),
    [
        (text("A label.", pattern="^[a-z]+$", examples=["ward"]), "give one such as ward: a label"),
        (text("Its number.", pattern="^[0-9]+$"), "give one that matches ^[0-9]+$: its number"),
    ],
)
def test_a_value_of_the_wrong_form_is_told_what_would_do(schema: JsonSchema, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate_request(record("A thing.", member=schema), {"member": "No!"}, "")
    assert caught.value.problem == "member 'No!'"
    assert caught.value.cure == cure


def test_a_member_that_is_missing_is_told_with_what_it_is() -> None:
    with pytest.raises(UsageError, match="member is missing") as caught:
        validate_request(record("A thing.", member=text("The label of a ward.")), {}, "")
    assert caught.value.cure == "give it: The label of a ward"
