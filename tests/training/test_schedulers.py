import io
import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from vae.training import schedulers

LR = 0.2
GUARD = "_get_lr_called_within_step"  # what torch's own schedule notes to itself during a step
SHAPES = {  # of the rate after the warm-up, as a function of the fraction of the rest
    "constant": lambda t: 1.0,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "one_cycle": lambda t: 1 - t,
    "stages": lambda t: stage(t),
}


def stage(t: float) -> float:
    """Of Burda et al. (2016): 3^i epochs at 10^(−i/7), i = 0 … 7; t is the fraction of these 3,280 epochs."""
    ends = [sum(3**j for j in range(i + 1)) for i in range(8)]
    return 10 ** -(next((i for i, end in enumerate(ends) if t * ends[-1] < end - 1e-9), 7) / 7)


def made(name: str, total_steps: int, warmup: float) -> LambdaLR:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    return getattr(schedulers, name)(optimizer, total_steps=total_steps, warmup=warmup)


def rates(schedule: LambdaLR, steps: int) -> list[float]:
    """The rate that each of the next steps is made with, and the one that comes after them."""
    found = [float(schedule.get_last_lr()[0])]
    for _ in range(steps):
        schedule.optimizer.step()
        schedule.step()
        found.append(float(schedule.get_last_lr()[0]))
    return found


@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.25, 0.5])
@pytest.mark.parametrize("name", SHAPES)
def test_rates_rise_over_the_warm_up_and_then_follow_the_formula(name, warmup):
    steps = 20
    rise = round(warmup * steps)
    expected = [LR * (i + 1) / (rise + 1) for i in range(rise)]
    expected += [LR * SHAPES[name]((i - rise) / (steps - rise)) for i in range(rise, steps + 1)]
    found = rates(made(name, steps, warmup), steps)
    assert found == pytest.approx(expected)
    assert found[rise] == max(found) == pytest.approx(LR) and min(found[:steps]) > 0


def test_a_step_is_one_of_torch_s_own_schedule():
    ours = made("cosine", 8, 0.25)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    own = LambdaLR(optimizer, ours.lr_lambdas)
    for _ in range(10):
        for schedule in (ours, own):
            schedule.optimizer.step()
            schedule.step()
        assert ours.state_dict() == {key: value for key, value in own.state_dict().items() if key != GUARD}
        assert ours.optimizer.state_dict() == own.optimizer.state_dict()


@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_the_end_is_zero_and_stays_so(name, warmup):
    found = rates(made(name, 17, warmup), 25)
    assert found[17:] == pytest.approx([0.0] * 9, abs=1e-15) and found[16] > 0


def test_known_rates():
    assert rates(made("cosine", 4, 0.0), 4) == pytest.approx(
        [LR, LR * (2 + 2**0.5) / 4, LR / 2, LR * (2 - 2**0.5) / 4, 0]
    )
    assert rates(made("one_cycle", 4, 0.5), 4) == pytest.approx([LR / 3, LR * 2 / 3, LR, LR / 2, 0])
    assert rates(made("constant", 4, 0.25), 4) == pytest.approx([LR / 2, LR, LR, LR, LR])


@pytest.mark.parametrize("name", SHAPES)
def test_a_resumed_schedule_goes_on_exactly_and_stretches_to_a_new_end(name):
    whole = rates(made(name, 20, 0.1), 20)
    first = made(name, 20, 0.1)
    rates(first, 8)
    file = io.BytesIO()
    torch.save((first.state_dict(), first.optimizer.state_dict()), file)
    file.seek(0)
    of_schedule, of_optimizer = torch.load(file, weights_only=True)
    for steps in (20, 60):
        again = made(name, steps, 0.1)
        again.optimizer.load_state_dict(of_optimizer)
        again.load_state_dict(of_schedule)
        expected = whole if steps == 20 else rates(made(name, 60, 0.1), 60)
        assert rates(again, steps - 8)[1:] == expected[9:]


@pytest.mark.parametrize("name", SHAPES)
def test_one_step_is_enough(name):
    assert rates(made(name, 1, 0.0), 1)[0] == LR


def test_the_stages_are_those_of_3280_epochs():
    found = rates(made("stages", 3280, 0.0), 3280)[:-1]
    expected = [LR * 10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert found == pytest.approx(expected)
