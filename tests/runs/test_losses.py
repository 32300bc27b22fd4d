"""The closing table, as the terminal and a run's card show it."""

import pytest

from vae.runs.losses import losses

TERMS = {"total": 5.004, "recon": 3.0, "kl": 2.004}


def metrics(**more: float) -> dict[str, float]:
    return {f"{part}/{name}": value for part in ("train", "val", "test") for name, value in (TERMS | more).items()}


def test_a_table_has_a_row_for_each_part_of_the_data() -> None:
    head, *rows = losses(metrics() | {"val/total_error": 0.031, "test/total_error": 0.029, "epochs": 3})
    assert head == ["nats per image", "total", "recon", "kl", "±"]
    assert rows == [
        ["train", "5.00", "3.00", "2.00", ""],
        ["validation", "5.00", "3.00", "2.00", "0.03"],
        ["test", "5.00", "3.00", "2.00", "0.03"],
    ]


@pytest.mark.parametrize(
    ("found", "head"),
    [
        (metrics(bits_per_dim=3.14159), ["total", "recon", "kl", "bits/dim"]),
        ({"test/recon": 1.0}, ["recon"]),
        ({"epochs": 3}, []),
    ],
)
def test_a_column_is_there_where_it_applies(found: dict[str, float], head: list[str]) -> None:
    table = losses(found)
    assert (table[0][1:] if table else []) == head
    assert "bits/dim" not in head or table[-1][-1] == "3.1416"
