import itertools

import numpy as np
import pytest
import torch
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)

from vae.model.distributions import (
    CholeskyFactor,
    DiagonalNormal,
    FullNormal,
    StandardNormal,
    TiedNormal,
    detached,
    from_noise,
    is_exact,
    kl,
    marginals,
)
from vae.model.priors import Flow
from vae.model.priors import mixture as mixture_of

BATCH, N = 5, 3
KINDS = ("diagonal", "full")
PAIRS = list(itertools.product(KINDS, KINDS))


def gaussian(kind: str, *batch: int, n: int = N) -> DiagonalNormal | FullNormal:
    """A random Gaussian in float64, far from a standard one."""
    loc = torch.randn(*batch, n, dtype=torch.float64)
    scale = torch.rand(*batch, n, dtype=torch.float64) + 0.3
    if kind == "diagonal":
        return DiagonalNormal(loc, scale)
    return FullNormal(loc, torch.randn(*batch, n, n, dtype=torch.float64).tril(-1) + scale.diag_embed())


def in_torch(gaussian: DiagonalNormal | FullNormal) -> MultivariateNormal:
    """The same distribution as torch writes it, from its covariance."""
    if isinstance(gaussian, DiagonalNormal):
        return MultivariateNormal(gaussian.base_dist.mean, gaussian.base_dist.variance.diag_embed())
    return MultivariateNormal(gaussian.loc, gaussian.scale_tril @ gaussian.scale_tril.mT)


class Unsampled(torch.Tensor):
    """A z that must not be looked at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("an exact KL was estimated from a sample")


NO_SAMPLE = torch.empty(0).as_subclass(Unsampled)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("batches", [((BATCH,), ()), ((BATCH,), (BATCH,)), ((), (BATCH,)), ((), ())])
@pytest.mark.parametrize(("q_kind", "p_kind"), PAIRS)
def test_kl_is_torch_s_own_and_looks_at_no_sample(q_kind, p_kind, batches, n):
    q, p = gaussian(q_kind, *batches[0], n=n), gaussian(p_kind, *batches[1], n=n)
    found = kl(q, p, NO_SAMPLE)
    assert found.shape == max(batches, key=len)
    assert torch.allclose(found, kl_divergence(in_torch(q), in_torch(p)), rtol=1e-10, atol=1e-10)
    assert torch.allclose(kl(q, q, NO_SAMPLE), torch.zeros(batches[0], dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("q_kind", "p_kind"), PAIRS)
def test_kl_is_the_mean_of_what_samples_say(q_kind, p_kind, mean_is):
    q, p = gaussian(q_kind, BATCH), gaussian(p_kind)
    z = q.sample((20_000,))
    mean_is(in_torch(q).log_prob(z) - in_torch(p).log_prob(z), kl(q, p, NO_SAMPLE))


@pytest.mark.parametrize("kind", KINDS)
def test_densities_samples_and_moments(kind, mean_is):
    q = gaussian(kind, BATCH)
    assert (q.batch_shape, q.event_shape) == ((BATCH,), (N,))
    z = q.sample((20_000,))
    assert torch.allclose(q.log_prob(z), in_torch(q).log_prob(z))
    assert torch.allclose(q.entropy(), in_torch(q).entropy())
    assert torch.allclose(q.covariance_matrix, in_torch(q).covariance_matrix)
    centred = z - q.loc
    mean_is(z, q.loc)
    mean_is(centred.unsqueeze(-1) * centred.unsqueeze(-2), q.covariance_matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("q_kind", "p_kind"), PAIRS)
def test_gradients_are_those_of_torch(q_kind, p_kind, dtype):
    loc = torch.randn(BATCH, N, dtype=dtype, requires_grad=True)
    scale = (torch.rand(BATCH, N, dtype=dtype) + 0.3).requires_grad_()
    p = gaussian(p_kind)
    mean, factor = p.loc.to(dtype), in_torch(p).scale_tril.to(dtype)
    p = DiagonalNormal(mean, factor.diagonal()) if p_kind == "diagonal" else FullNormal(mean, factor)
    q = DiagonalNormal(loc, scale) if q_kind == "diagonal" else FullNormal(loc, scale.diag_embed())
    found = torch.autograd.grad(kl(q, p, NO_SAMPLE).sum(), (loc, scale))
    reference = kl_divergence(MultivariateNormal(loc, scale_tril=scale.diag_embed()), in_torch_like(p)).sum()
    for gradient, expected in zip(found, torch.autograd.grad(reference, (loc, scale)), strict=True):
        assert gradient.isfinite().all() and torch.allclose(gradient, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_normal_is_the_diagonal_one_of_zeros_and_ones(kind):
    parameters = torch.zeros(N, dtype=torch.float64), torch.ones(N, dtype=torch.float64)
    standard, q = StandardNormal(*parameters), gaussian(kind, BATCH)
    reference = kl_divergence(in_torch(q), MultivariateNormal(parameters[0], parameters[1].diag()))
    assert torch.allclose(kl(q, standard, NO_SAMPLE), reference)
    if kind == "diagonal":  # whose formula leaves out what changes nothing, not even the last digit
        leaves = [parameter.requires_grad_() for parameter in (q.loc, q.scale)]
        values = [kl(q, p, NO_SAMPLE) for p in (standard, DiagonalNormal(*parameters))]
        assert torch.equal(*values)
        for gradients in zip(*(torch.autograd.grad(value.sum(), leaves) for value in values), strict=True):
            assert torch.equal(*gradients)


@pytest.mark.parametrize(("loc", "scale"), [((4, 3), (3,)), ((3,), (4, 3))])
def test_parameters_of_different_shapes_are_broadcast(loc, scale):
    q = DiagonalNormal(torch.randn(*loc), torch.rand(*scale) + 0.5)
    assert (q.batch_shape, q.event_shape) == ((4,), (3,)) and q.loc.shape == q.scale.shape == q.sample().shape == (4, 3)


def in_torch_like(p: DiagonalNormal | FullNormal) -> MultivariateNormal:
    return MultivariateNormal(p.loc, scale_tril=p.scale_tril if isinstance(p, FullNormal) else p.scale.diag_embed())


@pytest.mark.parametrize("scale", [1e-4, 1e3])
@pytest.mark.parametrize(("q_kind", "p_kind"), PAIRS)
def test_extreme_posteriors_stay_finite_in_single_precision(q_kind, p_kind, scale):
    loc = torch.full((BATCH, N), 10.0, requires_grad=True)
    sigma = torch.full((BATCH, N), scale, requires_grad=True)
    q = DiagonalNormal(loc, sigma) if q_kind == "diagonal" else FullNormal(loc, sigma.diag_embed())
    p = in_torch(gaussian(p_kind)).scale_tril.float()
    value = kl(q, FullNormal(torch.zeros(N), p), NO_SAMPLE).sum()
    assert value.isfinite() and all(g.isfinite().all() for g in torch.autograd.grad(value, (loc, sigma)))


def mixture() -> Distribution:
    return MixtureSameFamily(Categorical(logits=torch.randn(4, dtype=torch.float64)), gaussian("diagonal", 4))


def student() -> Distribution:
    return Independent(StudentT(torch.full((N,), 5.0, dtype=torch.float64)), 1)


@pytest.mark.parametrize("p", [mixture, student])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_without_a_formula_are_estimated_without_bias(kind, p):
    q, p = gaussian(kind, BATCH), p()
    with pytest.raises(NotImplementedError):
        kl_divergence(q, p)
    z = q.sample((20_000,))
    estimates = kl(q, p, z)
    assert estimates.shape == (20_000, BATCH)
    assert kl(q, p, z[0]).shape == (BATCH,) and torch.allclose(kl(q, p, z[0]), estimates[0])
    # Independent: −entropy has a closed form, and the cross-entropy comes from other samples and torch's own normals.
    other = in_torch(q).sample((20_000,))
    cross = -p.log_prob(other)
    noise = cross.std(0) / len(cross) ** 0.5
    spread = torch.hypot(estimates.std(0) / len(estimates) ** 0.5, noise)
    assert ((estimates.mean(0) - (cross.mean(0) - in_torch(q).entropy())).abs() < 6 * spread).all()
    assert (estimates.mean(0) > 0).all()


def test_the_estimate_of_a_known_kl_is_unbiased(mean_is):
    """A mixture of one component is a Gaussian whose KL has a formula, but none is registered for it."""
    q, p = gaussian("full", BATCH), gaussian("diagonal")
    component = DiagonalNormal(p.loc[None], p.scale[None])
    alone = MixtureSameFamily(Categorical(torch.ones(1, dtype=torch.float64)), component)
    mean_is(kl(q, alone, q.sample((20_000,))), kl(q, p, NO_SAMPLE))


def test_formulas_that_torch_has_are_used():
    q = gaussian("diagonal", BATCH)
    p = Independent(Normal(torch.zeros(N).double(), 2 * torch.ones(N).double()), 1)
    assert torch.allclose(kl(q, p, NO_SAMPLE), kl(q, DiagonalNormal(p.mean, p.stddev), NO_SAMPLE))
    laplace = Independent(Laplace(q.loc, q.scale), 1)
    assert torch.equal(kl(laplace, p, NO_SAMPLE), kl_divergence(laplace.base_dist, p.base_dist).sum(-1))


def test_a_users_own_multivariate_normal_takes_the_exact_path_too():
    covariance = torch.tensor([[2.0, 0.3], [0.3, 0.5]]).double()
    p = MultivariateNormal(torch.ones(2).double(), covariance)
    q = DiagonalNormal(torch.zeros(4, 2).double(), torch.full((4, 2), 0.7).double())
    full = FullNormal(q.loc, torch.diag_embed(q.scale))
    expected = kl_divergence(MultivariateNormal(q.loc, torch.diag_embed(q.scale**2)), p)
    for each in (q, full):
        assert torch.allclose(kl(each, p, torch.full((4, 2), torch.nan).double()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_formula_is_known_for_gaussians_only(kind):
    q = gaussian(kind, BATCH)
    assert all(is_exact(q, gaussian(other)) for other in KINDS)
    assert not is_exact(q, mixture()) and not is_exact(q, student())


# Parts of Gaussians ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_cholesky_factor_is_filled_as_by_hand(n):
    free = torch.randn(BATCH, CholeskyFactor.numbers(n), dtype=torch.float64, requires_grad=True)
    found = CholeskyFactor.of(free)
    assert found.shape == (BATCH, n, n)
    for numbers, factor in zip(free.detach().numpy(), found.detach().numpy(), strict=True):
        expected, rest = np.diag(np.exp(numbers[:n])), list(numbers[n:])
        for i in range(n):
            for j in range(i):
                expected[i, j] = rest.pop(0)
        assert not rest and np.allclose(factor, expected, rtol=1e-12, atol=0)
        # It is the factor that numpy finds of the covariance: lower triangular, with a positive diagonal.
        assert np.allclose(np.linalg.cholesky(factor @ factor.T), factor, rtol=1e-8)
    assert torch.equal(
        CholeskyFactor.of(torch.zeros(BATCH, CholeskyFactor.numbers(n))), torch.eye(n).expand(BATCH, n, n)
    )
    assert torch.equal(CholeskyFactor.of(free[0]), found[0])
    found.sum().backward()
    assert (free.grad != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_gaussian_is_the_same_but_for_its_gradient(kind):
    q = gaussian(kind, BATCH)
    parameters = [q.loc.requires_grad_(), (q.scale if kind == "diagonal" else q.scale_tril).requires_grad_()]
    q = type(q)(*parameters)
    z = q.sample().requires_grad_()
    fixed = detached(q)
    assert type(fixed) is type(q) and torch.equal(fixed.log_prob(z), q.log_prob(z))
    (by_z,) = torch.autograd.grad(q.log_prob(z).sum(), z, retain_graph=True)
    found = torch.autograd.grad(fixed.log_prob(z).sum(), [z, *parameters], allow_unused=True)
    assert torch.equal(found[0], by_z) and found[1:] == (None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_marginals_have_the_mean_and_the_variances(kind):
    q = gaussian(kind, BATCH)
    found, z = marginals(q), torch.randn(BATCH, N, dtype=torch.float64)
    for i in range(N):
        variance = in_torch(q).covariance_matrix[:, i, i]
        assert torch.allclose(found.base_dist.log_prob(z)[:, i], Normal(q.loc[:, i], variance.sqrt()).log_prob(z[:, i]))


@pytest.mark.parametrize("part", [detached, marginals])
def test_only_gaussians_have_parts(part):
    with pytest.raises(ValueError, match=r"^MixtureSameFamily: must be a Gaussian"):
        part(mixture())


def test_mixed_precision_leaves_a_full_gaussian_whole():
    """On a GPU autocast hands over the mean in 16 bits and the factor, an exponential, in 32."""
    q = FullNormal(torch.randn(BATCH, N).bfloat16(), CholeskyFactor.of(torch.randn(BATCH, CholeskyFactor.numbers(N))))
    z = q.rsample()
    assert z.dtype == q.log_prob(z).dtype == torch.float32 and q.log_prob(z).isfinite().all()


@pytest.mark.parametrize("kind", ["diagonal", "full", "nsf", "maf"])
def test_noise_is_carried_to_draws_by_a_change_of_variables(kind):
    """log p(z) = log N(ε; 0, I) − log |det dz/dε|."""
    p = gaussian(kind) if kind in KINDS else Flow(N, kind, 2, [8]).double()()
    noise = torch.randn(20, N, dtype=torch.float64)
    z = from_noise(p, noise)
    standard = Normal(torch.zeros_like(noise), 1).log_prob(noise).sum(-1)
    jacobians = [
        torch.autograd.functional.jacobian(lambda each: from_noise(p, each.unsqueeze(0))[0], each) for each in noise
    ]
    assert torch.allclose(p.log_prob(z), standard - torch.stack(jacobians).logdet(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_has_a_gaussian_of_its_own_for_its_noise(kind):
    q, noise = gaussian(kind, BATCH), torch.randn(BATCH, N, dtype=torch.float64)
    found = from_noise(q, noise)
    for i in range(BATCH):
        assert torch.allclose(found[i], q.loc[i] + in_torch(q).scale_tril[i] @ noise[i])


@pytest.mark.parametrize("kind", KINDS)
def test_choice_selects_components_as_often_as_they_weigh(kind):
    weights = torch.tensor([0.5, 0.125, 0.375], dtype=torch.float64)
    parts = gaussian(kind, 3)
    choice = torch.arange(8, dtype=torch.float64) / 8
    found = from_noise(mixture_of(weights.log(), parts), torch.zeros(8, N, dtype=torch.float64), choice)
    assert torch.equal(found, parts.loc[[0, 0, 0, 0, 1, 2, 2, 2]])


def test_what_has_no_map_of_noise_is_refused():
    cauchy = Independent(torch.distributions.Cauchy(torch.zeros(N), torch.ones(N)), 1)
    with pytest.raises(ValueError, match=r"^Independent: must be a Gaussian, a mixture of them or a flow"):
        from_noise(cauchy, torch.zeros(1, N))


@pytest.mark.parametrize("batch", [(), (5,)])
def test_a_tied_gaussian_s_kl_is_that_of_the_full_one(batch):
    torch.manual_seed(0)
    n = 4
    loc, scale = torch.randn(*batch, n).double(), torch.rand(*batch, n).double() + 0.1
    square = torch.randn(2, n, n).double()
    first, second = torch.linalg.cholesky(square @ square.mT + torch.eye(n))
    q = TiedNormal(loc, scale, torch.nn.functional.normalize(first, dim=-1))
    p = MultivariateNormal(torch.randn(n).double(), scale_tril=second)
    expected = kl_divergence(MultivariateNormal(q.loc, q.covariance_matrix), p)
    found = kl_divergence(q, FullNormal(p.loc, second))
    torch.testing.assert_close(found, expected)
    assert found.shape == batch and not torch.isclose(found, kl_divergence(q, FullNormal(p.loc, first))).any()
