"""A failed run tells a command or a webhook which run, in what state, why."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

Load = Callable[[str], ModuleType]
RUN = (
    SimpleNamespace(name="refresh"),
    SimpleNamespace(name="brave-otter", id="7"),
    SimpleNamespace(name="ValidationFailed", message="3 critical findings"),
)
SENT = {
    "text": "refresh/brave-otter: ValidationFailed: 3 critical findings",
    "flow": "refresh",
    "run": "brave-otter",
    "run_id": "7",
    "state": "ValidationFailed",
    "message": "3 critical findings",
}


def test_the_command_gets_the_message_on_its_standard_input(
    flow_module: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "page.py"
    script.write_text("import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())", encoding="utf-8")
    monkeypatch.setenv("GFM_ALERT_COMMAND", f"{sys.executable} {script} '{tmp_path / 'got it.json'}'")
    flow_module("alert").alert(*RUN)
    assert json.loads((tmp_path / "got it.json").read_text(encoding="utf-8")) == SENT


def test_the_webhook_gets_it_as_json(flow_module: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    monkeypatch.setenv("GFM_ALERT_URL", f"http://127.0.0.1:{server.server_port}/hook")
    flow_module("alert").alert(*RUN)
    thread.join()
    server.server_close()
    assert got == [SENT]


@pytest.mark.parametrize(
    ("variable", "target"),
    [
        ("GFM_ALERT_URL", "http://127.0.0.1:9/hook-secret"),
        ("GFM_ALERT_URL", "file:///etc/hostname-secret"),
        ("GFM_ALERT_COMMAND", "/no/such/program-secret"),
        ("GFM_ALERT_COMMAND", "unbalanced 'quote-secret"),
        ("GFM_ALERT_COMMAND", "false"),
    ],
)
def test_an_alert_that_cannot_be_sent_is_said_without_the_address_and_stops_nothing(
    flow_module: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, target: str
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    monkeypatch.setenv(variable, target)
    flow_module("alert").alert(*RUN)
    assert f"{variable}: not sent" in caplog.text
    assert "secret" not in caplog.text
