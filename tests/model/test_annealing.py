import math

import pytest
import torch

from vae.model.annealing import Annealing

STEPS, EPOCHS = 40, 10


def annealing(**arguments) -> Annealing:
    made = Annealing(**arguments)
    made.prepare(STEPS, EPOCHS)
    return made


BY_HAND = [  # arguments, the weight at some steps
    ({}, {0: 1, 7: 1, 39: 1}),
    ({"kind": "linear", "warmup": 5}, {0: 0, 1: 0.05, 5: 0.25, 10: 0.5, 20: 1, 39: 1}),
    ({"kind": "linear", "warmup": 0.5}, {0: 0, 1: 0.5, 2: 1, 39: 1}),
    ({"kind": "linear", "warmup": 10}, {0: 0, 39: 0.975, 40: 1}),
    (
        {"kind": "cosine", "warmup": 5},
        {0: 0, 5: (1 - math.sqrt(0.5)) / 2, 10: 0.5, 15: (1 + math.sqrt(0.5)) / 2, 20: 1},
    ),
    ({"kind": "cyclical", "cycles": 4}, {0: 0, 2: 0.4, 5: 1, 9: 1, 10: 0, 12: 0.4, 15: 1, 30: 0, 39: 1}),
    ({"kind": "cyclical", "cycles": 1}, {0: 0, 10: 0.5, 20: 1, 39: 1}),
]


@pytest.mark.parametrize(("arguments", "weights"), BY_HAND)
def test_the_weight_is_that_by_hand(arguments, weights):
    weight = annealing(**arguments)
    assert {step: weight(step) for step in weights} == pytest.approx(weights, abs=1e-12)


@pytest.mark.parametrize(("arguments", "weights"), BY_HAND)
def test_the_weight_of_a_step_in_a_tensor_is_the_same(arguments, weights):
    weight = annealing(**arguments)
    for step in (*range(STEPS), STEPS, 10 * STEPS):
        assert float(weight(torch.tensor(step))) == pytest.approx(weight(step), rel=1e-6)


@pytest.mark.parametrize(("arguments", "weights"), BY_HAND)
def test_the_step_is_the_only_state(arguments, weights):
    weight = annealing(**arguments)
    forwards = [weight(step) for step in range(STEPS)]
    backwards = [annealing(**arguments)(step) for step in reversed(range(STEPS))]
    assert forwards == backwards[::-1] and min(forwards) >= 0 and max(forwards) <= 1


@pytest.mark.parametrize("steps", [10, 21, 100])
def test_as_many_cycles_as_were_asked_for_also_where_their_length_is_no_integer(steps):
    for cycles in range(1, steps // 3):
        weight = Annealing("cyclical", cycles=cycles)
        weight.prepare(steps, epochs=1)
        found = [weight(step) for step in range(steps)]
        # A new cycle begins in the first step at or after a multiple of steps / cycles, and there alone it falls.
        starts = [0] + [step for step in range(1, steps) if found[step] < found[step - 1]]
        assert starts == [-(-cycle * steps // cycles) for cycle in range(cycles)]
        assert all(found[start] < 2 * cycles / steps for start in starts)


@pytest.mark.parametrize(("arguments", "weights"), BY_HAND)
def test_after_the_training_every_weight_is_at_its_final_value(arguments, weights):
    assert [annealing(**arguments)(step) for step in (STEPS, STEPS + 1, 10 * STEPS)] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["constant", "cyclical"])
def test_a_warm_up_that_does_nothing_is_refused(kind):
    with pytest.raises(ValueError, match=rf"^objective\.warmup=3: must be 0, .* with objective\.annealing={kind}$"):
        Annealing(kind, warmup=3)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_rise_over_no_epochs_is_refused(kind):
    with pytest.raises(
        ValueError, match=rf"^objective\.warmup=0: must be above 0, .* with objective\.annealing={kind}$"
    ):
        Annealing(kind)


@pytest.mark.parametrize("warmup", [-1.0, float("nan"), float("inf")])
def test_a_warm_up_that_never_ends_is_refused(warmup):
    with pytest.raises(ValueError, match=rf"^objective\.warmup={warmup}: must be a number of epochs of at least 0$"):
        Annealing("linear", warmup=warmup)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"^objective\.annealing=square: must be one of constant, linear, "):
        Annealing("square")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "constant"),
        ({"kind": "cosine", "warmup": 3}, "rising from 0 over 3 epochs (cosine)"),
        ({"kind": "linear", "warmup": 2.5}, "rising from 0 over 2.5 epochs (linear)"),
        ({"kind": "cyclical", "cycles": 3}, "3 cycles, each rising from 0 to 1 over its first half"),
    ],
)
def test_it_says_what_it_does(arguments, text):
    assert str(Annealing(**arguments)) == text
