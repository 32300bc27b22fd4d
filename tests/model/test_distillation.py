"""What a teacher teaches, beside the same divergences by other means."""

from typing import Any

import pytest
import torch
from exported import CODED, CORRELATED, DENSE, FULL, MODELS, a_model
from teachers import saved
from torch.distributions import MultivariateNormal, kl_divergence

from vae.model.distillation import Distillation
from vae.model.objectives import Batch

SMALLER = {"backbone": DENSE | {"hidden": [6, 5]}}
PAIRS: dict[str, dict[str, Any]] = {
    "diagonal": {},
    "full": {"posterior": FULL, "prior": CORRELATED},
    "gaussian": {"likelihood": {"_target_": "vae.model.likelihoods.Gaussian", "sigma": 0.3}},
    "conditional": {"conditional": True},
}


def taught(student, teacher, folder, weight=2.5, beta=0.7):
    objective = Distillation(beta, str(saved(teacher, folder)), weight)
    objective.attach(student.vae)
    objective.prepare(steps=40, epochs=2)
    return objective


def a_batch(model, n=12):
    return Batch(torch.rand(n, *model.shape), torch.arange(n) % 3)


def as_normal(q):
    return MultivariateNormal(q.mean, q.covariance_matrix)


@pytest.mark.parametrize("name", PAIRS)
def test_the_loss_is_its_formula(name, tmp_path):
    teacher, student = a_model(**PAIRS[name]), a_model(**PAIRS[name] | SMALLER)
    objective, batch = taught(student, teacher, tmp_path), a_batch(student)
    found, terms = objective(student.vae, batch, 30)
    with torch.no_grad():
        theirs = teacher.vae.encode(batch.images, batch.labels)
        codes = kl_divergence(as_normal(theirs), as_normal(terms.latent.q)).mean()
        p, own = teacher.vae.decode(terms.latent.z, batch.labels), terms.p_x
        if name == "gaussian":
            ratio = (p.stddev / own.stddev).square()
            single = 0.5 * (ratio + ((p.mean - own.mean) / own.stddev).square() - 1 - ratio.log())
        else:  # Σ p log (p / q) over black and white
            black, white = p.mean.double(), own.mean.double()
            single = black * (black / white).log() + (1 - black) * ((1 - black) / (1 - white)).log()
        images = single.sum((1, 2, 3)).mean()
    assert found.parts["taught_codes"].item() == pytest.approx(codes.item(), rel=1e-4)
    assert found.parts["taught_images"].item() == pytest.approx(images.item(), rel=1e-4)
    own_loss = terms.recon.mean() + 0.7 * terms.kl.mean()
    assert found.value.item() == pytest.approx((own_loss + 0.25 * 2.5 * (codes + images)).item(), rel=1e-5)


def test_the_teacher_s_say_falls_to_nothing(tmp_path):
    teacher, student = a_model(), a_model(**SMALLER)
    objective = taught(student, teacher, tmp_path, beta=1)
    terms = objective.terms_of(student.vae, batch := a_batch(student))
    total = terms.total.mean().item()
    whole, half, none = (objective.loss(terms, batch, step).value.item() - total for step in (0, 20, 40))
    assert half == pytest.approx(whole / 2, rel=1e-3) and none == pytest.approx(0, abs=1e-4) and whole > 0.1
    assert [objective.annealed(step) for step in (0, 10, 40)] == [1, 0.75, 0]


def test_the_teacher_itself_has_nothing_to_learn(tmp_path):
    teacher = a_model()
    found, terms = taught(teacher, teacher, tmp_path, beta=1)(teacher.vae, a_batch(teacher), 0)
    assert found.value.item() == pytest.approx(terms.total.mean().item())
    assert all(part.item() == pytest.approx(0, abs=1e-5) for part in found.parts.values())


def test_gradients_teach_the_student_alone_and_the_teacher_is_not_stored(tmp_path):
    teacher, student = a_model(), a_model(**SMALLER)
    objective = taught(student, teacher, tmp_path)
    objective(student.vae, a_batch(student), 0)[0].value.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in student.vae.parameters())
    (hidden,) = objective._teacher
    assert not any(weight.requires_grad for weight in hidden.parameters()) and not hidden.training
    assert not objective.state_dict() and not list(objective.parameters())
    assert len(objective.ledger()) == 4 and objective.ledger()[2].weight == "2.5, falling to 0"


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "latents": ({}, {"shape": (1, 4, 7)}, r"must be of images \[1, 4, 7\] and 3 latents, not of \[1, 5, 7\] and 3"),
    "codes": (CODED["codes"], {}, r"must be of images \[1, 5, 7\] and 3 latents, not of"),
    "levels": (MODELS["levels"], MODELS["levels"], "must have Gaussian posteriors and a likelihood whose KL is known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_teachers_are_refused(name, tmp_path):
    teacher, student, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"^objective\.teacher=.*weights\.ckpt: {message}") as refused:
        taught(a_model(**student), a_model(**teacher), tmp_path)
    assert "\n" not in str(refused.value)


def test_a_missing_teacher_is_refused():
    with pytest.raises(ValueError, match=r"^objective\.teacher=nowhere: nowhere: must be the folder of a run"):
        Distillation(1.0, "nowhere", 1.0).attach(a_model().vae)
