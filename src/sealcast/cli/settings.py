"""Options from a file: TOML, a table for each command, the options' long names as keys.

    [publish]
    interface = "eth1"

    [authority.serve]
    listen = "192.0.2.7:8443"

What the command line says comes first, then the environment, then the file, then the built-in default.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sealcast.errors import ConfigError, StorageError

ENVIRONMENT = "SEALCAST_CONFIG"


def default_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the user's file: `$XDG_CONFIG_HOME/sealcast/config.toml`, by default under `~/.config`."""
    base = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "sealcast" / "config.toml"


def read_settings(path: Path | None) -> dict[str, Any]:
    """Return the tables of a file; without a path those of the user's own file, if there is one.

    Raises: StorageError if a file that was named cannot be read; ConfigError if it is not TOML.
    """
    chosen = path or default_file()
    try:
        text = chosen.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return {}
        raise StorageError(str(path), "does not exist", cure="name another file with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(str(chosen), f"cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{chosen} is not TOML: {error}", cure="correct the file") from None


def defaults_of(command: Any, tables: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the defaults for a command and those under it, by parameter name, as its framework takes them.

    A command that is not loaded is passed over; an option that does not exist is an error, so that a misspelt
    one does not stay without effect in silence.
    Raises: ConfigError.
    """
    commands: Mapping[str, Any] = getattr(command, "commands", {})
    options = {
        name.removeprefix("--"): parameter.name
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for key, value in tables.items():
        place = f"{where}.{key}" if where else key
        if isinstance(value, Mapping) and key in commands:
            defaults[key] = defaults_of(commands[key], value, place)
        elif key in options and not isinstance(value, Mapping):
            defaults[options[key]] = value
        elif where or not isinstance(value, Mapping):
            known = ", ".join(sorted([*commands, *options]))
            raise ConfigError(f"the settings know no {place!r}", cure=f"there are: {known}")
    return defaults
