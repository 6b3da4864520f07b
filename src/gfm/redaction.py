"""What is printed or recorded carries no password: those of addresses and of the environment are blotted out."""

from __future__ import annotations

import os
import re

BLOT = "***"
SECRET_NAMES = ("PASSWORD", "TOKEN", "SECRET", "SECRET_KEY", "SECRET_ACCESS_KEY", "API_KEY")  # ends of variables' names
SHORTEST = 6  # a shorter secret would blot out ordinary words, such as false
_USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")  # https://NAME:PASSWORD@host


def redact(text: str) -> str:
    """The text without the user and password of any address, and without the secrets of this process's environment."""
    text = _USER_INFO.sub(BLOT, text)
    for name, value in os.environ.items():
        if name.upper().endswith(SECRET_NAMES) and len(value) >= SHORTEST:
            text = text.replace(value, BLOT)
    return text


def without_user(address: str) -> str:
    """An address without its user and password."""
    return _USER_INFO.sub("", address).replace("://@", "://", 1)
