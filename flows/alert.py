"""Tell someone that a run failed: a command or a webhook that the worker's environment names."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import urllib.request
from typing import Any

COMMAND = "GFM_ALERT_COMMAND"  # gets the message as JSON on its standard input
WEBHOOK = "GFM_ALERT_URL"  # gets it as a POST; its address is a secret, hence no parameter of the flow
TIMEOUT_S = 60


def alert(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a failed or crashed run; an alert that cannot be sent is said in the log and stops nothing."""
    said = message(flow, flow_run, state)
    for send, variable in ((_command, COMMAND), (_webhook, WEBHOOK)):
        if target := os.environ.get(variable):
            try:
                send(target, said)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                # Not the error's own words: they may hold the address.
                logging.getLogger("prefect.gfm").error("%s: not sent (%s)", variable, type(error).__name__)


def message(flow: Any, flow_run: Any, state: Any) -> dict[str, str]:
    """What is sent; `text` alone is enough for most chat webhooks."""
    said = {
        "flow": str(flow.name),
        "run": str(flow_run.name),
        "run_id": str(flow_run.id),
        "state": str(state.name),
        "message": str(state.message or ""),
    }
    return {"text": f"{said['flow']}/{said['run']}: {said['state']}: {said['message']}", **said}


def _command(command: str, said: dict[str, str]) -> None:
    subprocess.run(shlex.split(command), input=json.dumps(said), text=True, timeout=TIMEOUT_S, check=True)


def _webhook(address: str, said: dict[str, str]) -> None:
    if not address.startswith(("http://", "https://")):
        raise ValueError("not an address of the web")
    request = urllib.request.Request(
        address, json.dumps(said).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):
        pass
