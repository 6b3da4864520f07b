"""Passwords reach neither the terminal nor the log, however they got into the words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gfm import cli
from gfm.progress import say
from gfm.redaction import redact, without_user

PASSWORD = "hunter2-S3cret"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://ann:pw@host:5000/x", "https://***@host:5000/x"),
        ("postgresql+psycopg://ann:p%40w@db/x and http://b:c@d", "postgresql+psycopg://***@db/x and http://***@d"),
        ("no user in https://host:5000, mail to ann@host", "no user in https://host:5000, mail to ann@host"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_addresses_lose_their_user(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert redact(redacted) == redacted


def test_a_server_is_reached_without_the_user_in_its_address() -> None:
    assert without_user("https://ann:pw@host:5000/x") == "https://host:5000/x"
    assert without_user("https://host:5000/x") == "https://host:5000/x"


def test_secrets_of_the_environment_are_blotted_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("SOME_TOKEN", "false")  # a switch, not a secret: too short to be one
    say(f"sent {PASSWORD}: false")
    assert capsys.readouterr().out == "sent ***: false\n"


def test_a_password_in_the_parameter_file_is_refused_without_being_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gfm: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    raw["tracking"] = {"uri": f"http://ann:{PASSWORD}@127.0.0.1:9"}
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    code, out, err = gfm("promote")
    assert code == 2 and PASSWORD not in out + err
    assert err.startswith("gfm: params.yaml: tracking.uri: holds a password") and "MLFLOW_TRACKING_PASSWORD" in err
    assert err.count("\n") == 1


def test_a_traceback_keeps_its_lines_and_loses_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError(f"http://ann:{PASSWORD}@host")
    except KeyError as error:
        cli._print_traceback(type(error), error, error.__traceback__)
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told and "KeyError: 'http://***@host'" in told
