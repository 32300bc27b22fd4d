import json

import notebooks
import pytest

pytest.importorskip("nbclient", reason="comes with the extra dev")


def test_a_cell_that_fails_is_one_line_and_the_file_stays(tmp_path):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": "1 / 0"}
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"^error: .*a\.ipynb: a cell fails with ZeroDivisionError: division by zero$"):
        notebooks.main([str(path)])
    assert json.loads(path.read_text()) == content
