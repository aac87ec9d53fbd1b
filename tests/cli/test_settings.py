"""Options from a file, from the environment and from the command line, in this order of weight."""

from pathlib import Path

import pytest

from sealcast.cli import main
from sealcast.cli.settings import default_file, read_settings
from sealcast.errors import ConfigError, StorageError


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


def test_a_file_gives_defaults(settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings.write_text('[publish]\nlinger = "soon"\n')
    code, told = outcome(capsys, "--config", settings, "publish", tmp_path, "ward/ecg")
    assert code != 0
    # The folder is looked at first: it is no device; the option is read all the same where it comes to it.
    assert "holds no device" in told


def test_the_command_line_comes_first(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.write_text('[authority.serve]\nlisten = "of the file"\n')
    _, from_file = outcome(capsys, "--config", settings, "authority", "serve", tmp_path)
    _, from_line = outcome(
        capsys, "--config", settings, "authority", "serve", tmp_path, "--listen", "of the line"
    )
    assert "of the file" in from_file
    assert "of the line" in from_line


def test_the_environment_names_the_file(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text('[authority.serve]\nlisten = "of the file"\n')
    monkeypatch.setenv("SEALCAST_CONFIG", str(settings))
    assert "of the file" in outcome(capsys, "authority", "serve", tmp_path)[1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[publish]\nintreface = "lo"\n', "publish.intreface"),
        ("publish = 3\n", "publish"),
        ("[publish.deeper]\nx = 1\n", "publish.deeper"),
    ],
)
def test_what_is_unknown_is_named(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    settings.write_text(text)
    code, told = outcome(capsys, "--config", settings, "publish", tmp_path, "ward/ecg")
    assert code == ConfigError.exit_code
    assert repr(named) in told


def test_a_named_file_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        read_settings(tmp_path / "gone.toml")


def test_the_users_own_file_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_file({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "sealcast" / "config.toml"
    assert read_settings(None) == {}


def test_what_is_not_toml(settings: Path) -> None:
    settings.write_text("[publish\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_settings(settings)
