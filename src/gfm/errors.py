"""Errors meant for the user: each message is one line that names the thing and the fix."""


class GfmError(Exception):
    """Something the user can mend; the command line prints its message alone and exits with 2."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, a line each; most errors are about one thing."""
        return (str(self),)


class DataError(GfmError):
    """Data that cannot be used as a whole (a missing source, a failed validation); single bad files are quarantined."""


class WeightsError(GfmError):
    """Weights that are missing, of another architecture, or not what they are declared to be."""


class Stopped(GfmError):
    """Work that ended before its end because its limits say so; it can go on from where it stands."""

    by = "limit"  # what stopped it, for the tag of its tracking run
