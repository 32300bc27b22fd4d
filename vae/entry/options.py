"""The options of the command line, which are Hydra's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser


def in_order(arguments: Sequence[str]) -> list[str]:
    """The arguments with options first, as Hydra wants them; refuse an option that does not exist."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    found, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise ValueError(_no_such_option(unknown[0], arguments))
    overrides = Counter(found.overrides)
    options = []
    for text in arguments:
        if overrides[text]:
            overrides[text] -= 1
        else:
            options.append(text)
    return [*options, *found.overrides]


def _refuse(message: str) -> NoReturn:
    """What argparse does with an error, which shows its usage first."""
    raise ValueError(f"{message}; see --help")


def _no_such_option(text: str, arguments: Sequence[str]) -> str:
    """The sentence that refuses an option, with the key that it may be meant for."""
    name, _, value = text.lstrip("-").partition("=")
    after = [*arguments, ""][arguments.index(text) + 1]
    if not value and "=" not in after and not after.startswith("-"):
        value = after  # --beta 4
    return f"{text}: no such option; write {name.replace('-', '_')}={value or '…'}"
