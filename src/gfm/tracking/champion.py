"""Making a version the champion, so that a second promotion beside it or a kill between two writes does no harm.

The writes and why they stand in this order:

1. `approval.TIME` on the new version, one tag: whoever becomes champion has its record already. Killed after it, the
   old champion still serves, and the approval waits; the next promotion judges again and adds its own.
2. the alias `champion`, which MLflow moves in one step: from here the new version serves.
3. `champion.since` and `champion.until`, told by the approval, so that a rerun writes the same.
4. the alias `challenger` goes last: as long as it stands, the same command finds its work to finish.

`settle` is 3 and 4. Every promotion settles the present champion first, whatever was asked.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from gfm.tracking.store import TrackingError, working_folder_lock
from gfm.tracking.versions import CHALLENGER, CHAMPION, Registry, Version

APPROVAL = "approval."  # + the time; the value is the record, JSON
SINCE = "champion.since"
UNTIL = "champion.until"


def crown(registry: Registry, version: Version, judged: Mapping[str, str], record: Mapping[str, JsonValue]) -> None:
    """Make `version` the champion with `record` as the reason, unless the aliases are no longer those `judged`.

    Raises TrackingError where another promotion was faster. The lock is the working folder's: against promotions from
    other folders there is only this look at the aliases, just before the first write.
    """
    with working_folder_lock():
        now = registry.aliases()
        if now != judged:
            raise TrackingError(
                f"{registry.name}: its aliases were {_told(judged)} and are {_told(now)} now: another promotion or "
                "registration was faster; run `gfm promote` again"
            )
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")  # tags' names take no colon everywhere
        approval = {"at": at, "by": _user(), "previous": now.get(CHAMPION), **record}
        set_tag(registry, version.number, f"{APPROVAL}{at}", json.dumps(approval, ensure_ascii=False))
        registry.client.set_registered_model_alias(registry.name, CHAMPION, version.number)
        _settle(registry, version.number)


def settle(registry: Registry) -> None:
    """Finish what a killed promotion left; nothing where there is nothing to finish."""
    with working_folder_lock():
        champion = registry.aliases().get(CHAMPION)
        if champion is not None:
            _settle(registry, champion)


def approval(version: Version) -> dict[str, JsonValue]:
    """The last record of why a version became champion; empty where it has none (an alias set by other means)."""
    found = max((key for key in version.tags if key.startswith(APPROVAL)), default=None)
    return {} if found is None else dict(json.loads(version.tags[found]))


def set_tag(registry: Registry, number: str, key: str, value: str) -> None:
    """One tag of a version."""
    registry.client.set_model_version_tag(registry.name, number, key, value)


def _settle(registry: Registry, champion: str) -> None:
    crowned = registry.version(champion)
    record = approval(crowned)
    if record:
        at, previous = str(record["at"]), record["previous"]
        if crowned.tags.get(SINCE) != at:
            set_tag(registry, champion, SINCE, at)
        if UNTIL in crowned.tags:
            registry.client.delete_model_version_tag(registry.name, champion, UNTIL)
        known = {version.number: version for version in registry.versions()}
        before = known.get(str(previous))  # it may have been deleted since
        if before is not None and before.number != champion and before.tags.get(UNTIL) != at:
            set_tag(registry, before.number, UNTIL, at)
    if registry.aliases().get(CHALLENGER) == champion:
        registry.client.delete_registered_model_alias(registry.name, CHALLENGER)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _told(aliases: Mapping[str, str]) -> str:
    return ", ".join(f"{alias} {number}" for alias, number in sorted(aliases.items())) or "none"
