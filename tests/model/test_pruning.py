"""Units are kept by their effect on the bound, which is measured again by leaving each one out."""

import pytest
import torch
from exported import CONV, DENSE, MODELS, RESNET, a_model
from torch.nn import ConvTranspose2d

from vae.common.seeding import apart
from vae.model.pruning import begin_with, effects, units_of, useful

NARROWER = {
    "dense": ({}, {"backbone": DENSE | {"hidden": [5, 3]}}),
    "conv": (
        {"shape": (2, 9, 8), "backbone": CONV, "posterior": MODELS["colours"]["posterior"]},
        {"backbone": CONV | {"channels": [3, 4], "hidden": 2}},
    ),
}


def images_of(model, n=40):
    return torch.rand(n, *model.shape), torch.zeros(n).long()


def total(vae, images, labels):
    with torch.no_grad(), apart("pruning"):
        return vae(images, labels).total


@torch.no_grad()
def silenced(vae, place, unit):
    """The model without a unit, by zeros in what makes it."""
    units = units_of(vae)[place]
    weight = units.made.weight.movedim(1, 0) if isinstance(units.made, ConvTranspose2d) else units.made.weight
    for each in (weight, units.made.bias):
        each.unflatten(0, (units.width, -1))[unit] = 0
    return vae


@pytest.mark.parametrize("name", NARROWER)
def test_all_units_are_found(name):
    parent = a_model(**NARROWER[name][0]).vae
    widths = [units.width for units in units_of(parent)]
    assert widths == {"dense": [8, 4, 4, 8], "conv": [4, 6, 5, 6, 6, 4]}[name]


@pytest.mark.parametrize("name", NARROWER)
def test_an_effect_is_the_change_without_the_unit_to_first_order(name):
    """By central differences of a small change of the unit, done to its weights."""
    model = a_model(**NARROWER[name][0])
    vae, (images, labels) = model.vae.double(), images_of(model)
    images = images.double()
    units = units_of(vae)
    measured = effects(vae, images, labels, [torch.ones(each.width).double() for each in units])
    whole, small = {name: value.clone() for name, value in vae.state_dict().items()}, 1e-5
    for place, each in enumerate(units):
        for unit in range(each.width):
            without = {name: value.clone() for name, value in silenced(vae, place, unit).state_dict().items()}
            moved = []
            for step in (small, -small):
                vae.load_state_dict({name: torch.lerp(whole[name], without[name], step) for name in whole})
                moved.append(total(vae, images, labels))
            vae.load_state_dict(whole)
            change = (moved[0] - moved[1]) / (2 * small)
            assert measured[place][unit].item() == pytest.approx(change.square().mean().item(), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("name", NARROWER)
def test_a_narrower_model_is_its_parent_with_the_other_units_silent(name):
    changed, narrower = NARROWER[name]
    parent, child = a_model(**changed), a_model(**changed | narrower)
    images, labels = images_of(parent)
    begin_with(child.vae, parent.vae, images, labels)
    kept = useful(parent.vae, images, labels, [units.width for units in units_of(child.vae)])
    for place, (keep, units) in enumerate(zip(kept, units_of(parent.vae), strict=True)):
        assert keep.tolist() == sorted({*keep.tolist()}) and len(keep) < units.width
        for unit in {*range(units.width)} - {*keep.tolist()}:
            silenced(parent.vae, place, unit)
    torch.testing.assert_close(total(child.vae, images, labels), total(parent.vae, images, labels))
    fresh = a_model(**changed | narrower)
    assert not torch.allclose(total(fresh.vae, images, labels), total(child.vae, images, labels), rtol=1e-3)


def test_a_unit_that_does_nothing_goes_first():
    parent, child = a_model(), a_model(backbone=DENSE | {"hidden": [7, 4]})
    silenced(parent.vae, 0, 3), silenced(parent.vae, 3, 5)
    images, labels = images_of(parent)
    before = total(parent.vae, images, labels)
    begin_with(child.vae, parent.vae, images, labels)
    torch.testing.assert_close(total(child.vae, images, labels), before)


@pytest.mark.parametrize("name", ["plain", "residual", "gated", "two vectors"])
def test_the_same_widths_are_the_identity(name):
    parent, child = a_model(**MODELS[name]), a_model(**MODELS[name])
    images, labels = images_of(parent)
    begin_with(child.vae, parent.vae, images, labels)
    assert all(torch.equal(each, child.vae.state_dict()[key]) for key, each in parent.vae.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "wider", "message"),
    [
        ({}, {"backbone": DENSE | {"hidden": [9, 4]}}, "^must be a run with 4 hidden layers, each at least as wide"),
        ({}, {"backbone": DENSE | {"hidden": [8, 4, 2]}}, "^must be a run with 6 hidden layers"),
        (
            {},
            {"posterior": MODELS["colours"]["posterior"]},
            "^must be a run that differs from this one in the backbone's",
        ),
        (
            {"backbone": RESNET | {"attention": []}},
            {"backbone": RESNET | {"attention": [], "channels": [2, 6]}},
            "^must have the backbone dense, not gated, or conv to be pruned$",
        ),
    ],
)
def test_other_parents_are_refused(changed, wider, message):
    parent, child = a_model(**changed), a_model(**changed | wider)
    with pytest.raises(ValueError, match=message):
        begin_with(child.vae, parent.vae, *images_of(parent))
