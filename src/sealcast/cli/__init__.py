"""The command line: one file per command, wired together here.

Each command file has `register(app)`. What all commands share: errors are one line on standard error,
`sealcast: error: what (what to do about it)`, with the exit code of the error's class (`sealcast.errors`);
`--debug` adds the traceback; Ctrl-C ends with 130.
"""

import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sealcast import system
from sealcast.cli.settings import ENVIRONMENT, defaults_of, read_settings
from sealcast.errors import InternalError, SealcastError, StorageError

COMMANDS = (
    "authority",
    "policy",
    "root",
    "admin",
    "device",
    "publish",
    "subscribe",
    "repair-node",
    "send",
    "receive",
    "peer",
    "demo",
)
"""Files beside this one (`module_of`), in the order of `--help`."""

_DESCRIPTORS = 65_536

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def module_of(command: str) -> str:
    """The module of a command."""
    return f"sealcast.cli.{command.replace('-', '_')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    `argv`: the arguments after the program's name, by default those of the process. Returns: the exit code.
    """
    system.limit_process(_DESCRIPTORS)
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _Debug()
    try:
        result = _application(arguments, debug)(args=arguments, prog_name="sealcast", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        # Without arguments the help is the answer, and the message is empty.
        if text := error.format_message().rstrip("."):
            say(f"error: {text[0].lower()}{text[1:]} (see --help)")
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Standard output was closed (typer makes SystemExit of it): the reader has what it wanted. Python
        # flushes once more at exit and must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # noqa: BLE001 - the one place where every error ends
        if debug.is_on:
            traceback.print_exc()
        return _report(error)
    return result if isinstance(result, int) else 0


def escape(text: str) -> str:
    """Return text of a peer, a file or a user without what would move a terminal's cursor or colours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _Debug:
    """Whether tracebacks are wanted."""

    is_on = False


def _application(arguments: Sequence[str], debug: _Debug) -> typer.Typer:
    app = typer.Typer(
        name="sealcast",
        help="Secure reliable multicast with full key management.",
        epilog="With --json, results are JSON on standard output; an error is one line of text on standard "
        "error all the same. Exit codes: 1 internal, 2 usage, 3 configuration, 4 enrolment, 5 certificate, "
        "6 channel, 7 network, 8 file or disk, 9 something is missing, 130 interrupted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        context: typer.Context,
        config: Annotated[
            Path | None,
            typer.Option(
                "--config",
                metavar="FILE",
                envvar=ENVIRONMENT,
                help="TOML file with options; by default ~/.config/sealcast/config.toml.",
            ),
        ] = None,
        show_debug: bool = typer.Option(
            False, "--debug", envvar="SEALCAST_DEBUG", help="Show tracebacks and log more."
        ),
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ) -> None:
        debug.is_on = show_debug
        context.default_map = defaults_of(context.command, read_settings(config))
        logging.basicConfig(
            level=logging.DEBUG if show_debug else logging.WARNING,
            format="sealcast: %(levelname)s: %(name)s: %(message)s",
        )

    # Only what is named is imported: the others and their libraries cost time at each start.
    named = [command for command in COMMANDS if command in arguments]
    for command in named or COMMANDS:
        module = module_of(command)
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module).register(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from sealcast import __version__

        typer.echo(__version__)
        raise typer.Exit


def _report(error: Exception) -> int:
    if isinstance(error, OSError):
        error = StorageError(error.filename or "input or output", error.strerror or type(error).__name__)
    if not isinstance(error, SealcastError):
        error = InternalError(f"internal: {type(error).__name__}: {error}")
    say(f"error: {error}" + (f" ({error.cure})" if error.cure else ""))
    return error.exit_code


def say(text: str) -> None:
    """Tell a person, on standard error."""
    typer.echo(escape(f"sealcast: {text}"), err=True)
