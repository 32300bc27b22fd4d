"""The default data: MNIST where it can be had, else `strokes`."""

from __future__ import annotations

import logging

from vae.data.base import DataError, Dataset
from vae.data.idx import IdxFiles

log = logging.getLogger(__name__)
_told: set[str] = set()  # reasons that this process has given: a sweep would repeat a long one before every job


class Auto(IdxFiles):
    """MNIST from disk or from its mirrors, else the built-in `strokes`; the name of what is read says which."""

    otherwise = ""

    def read(self) -> Dataset:
        try:
            return super().read()
        except DataError as error:
            reason = ", as before" if str(error) in _told else f". The reason: {error}"
            log.warning("MNIST cannot be had, so the built-in data=strokes is used instead%s", reason)
            _told.add(str(error))
        from vae.data.strokes import Strokes

        strokes = Strokes(self.root, self.batch_size, self.val_fraction, self.binarize, self.limit, self.flip)
        return strokes.read()
