"""What the terminal shows of the log: the program's own words and every warning, without tracebacks."""

from __future__ import annotations

import logging

FILE_ONLY = {"file_only": True}  # pass as `extra` for what belongs in train.log but not on the terminal


class TerminalFilter(logging.Filter):
    """Lets through this package's messages and anybody's warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "file_only", False):
            return False
        return record.levelno >= logging.WARNING or record.name.split(".")[0] == "vae"


class TerminalFormatter(logging.Formatter):
    """The message alone; warnings and errors say that they are. Tracebacks are for the log file."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"
