"""Generator and critic: each equation by brute force in float64, second gradients included, and a
generator that finds two clusters."""

import pytest
import torch
from torch.autograd.functional import jacobian

from nlpkit.encoders.undrawn import Undrawn
from nlpkit.layers.adversarial import (
    CRITICS,
    Adversary,
    SpectralLinear,
    gradient_penalty,
    score_and_length,
    single_loss,
)

LABELS_B = torch.tensor([0, 1, 0, 1, 1])


def made(kind, size=3, noise=2, penalty=10.0):
    torch.manual_seed(1)
    return Adversary(size, 2, noise, kind, penalty).double()


def vectors(rows=5, size=3, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, size, generator=generator, dtype=torch.float64)


def gradients_by_hand(critic, vectors_BP):
    """The gradient of D by each vector, of each alone: (B, P)."""
    rows = []
    for label, vector_P in zip(LABELS_B, vectors_BP, strict=True):
        rows.append(jacobian(lambda v, label=label: critic(label[None], v[None])[0], vector_P))
    return torch.stack(rows)


def by_hand(kind, critic, vectors_BP):
    """(D_B of a kind, its gradient's length where D is linear nearby)."""
    plain_B = critic(LABELS_B, vectors_BP)
    length_B = gradients_by_hand(critic, vectors_BP).norm(dim=1)
    if kind == "normalised":
        return plain_B / (length_B + plain_B.abs()), (length_B / (length_B + plain_B.abs())) ** 2
    if kind == "normalised_squared":
        square_B = length_B**2
        return plain_B * length_B / (square_B + 1e-6), square_B / (square_B + 1e-6)
    return plain_B, length_B


@pytest.mark.parametrize("kind", CRITICS)
def test_the_score_and_its_slope_are_those_of_the_formula(kind):
    critic = made(kind).critic
    inputs_BP = vectors().requires_grad_()
    found_B = critic.score(LABELS_B)(inputs_BP)
    expected_B, slope_B = by_hand(kind, critic, inputs_BP.detach())
    torch.testing.assert_close(found_B, expected_B)
    (gradient_BP,) = torch.autograd.grad(found_B.sum(), inputs_BP)
    torch.testing.assert_close(gradient_BP.norm(dim=1), slope_B)
    if kind in ("normalised", "normalised_squared"):
        assert bool((gradient_BP.norm(dim=1) <= 1 + 1e-9).all())
        assert bool((found_B.abs() <= 1).all()) or kind == "normalised_squared"


def slopes(loss_of, parameters, width=1e-6):
    """The gradient of a number by each parameter along a random direction, by differences."""
    found = []
    for parameter in parameters:
        direction = torch.randn_like(parameter)
        values = []
        for step in (width, -2 * width):
            with torch.no_grad():
                parameter += step * direction
            values.append(float(loss_of().detach()))
        with torch.no_grad():
            parameter += width * direction
        wanted = (values[0] - values[1]) / (2 * width)
        (gradient,) = torch.autograd.grad(loss_of(), parameter)
        found.append((float((gradient * direction).sum()), wanted))
    return found


@pytest.mark.parametrize("kind", ["penalty", "normalised", "normalised_squared"])
def test_second_gradients_reach_critic_and_generator(kind):
    adversary = made(kind)
    drawn_BN = torch.cat([vectors(size=2), torch.rand(5, 1, dtype=torch.float64)], 1)

    def loss():
        """Of D alone, whose second gradient both networks need."""
        made_BP = adversary.generator(LABELS_B, drawn_BN[:, :-1])
        score = adversary.critic.score(LABELS_B)
        if kind == "penalty":
            _, length_B = score_and_length(score, made_BP)
            return (length_B - 1).square().sum()
        return score(made_BP).sum()

    weights = [adversary.critic.first.weight, adversary.critic.second.weight]
    weights += [adversary.critic.labels.weight]
    if kind != "penalty":
        weights += [adversary.generator.last.weight, adversary.critic.last.bias]
    for found, wanted in slopes(loss, weights):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_the_penalty_is_that_of_the_slope_between_the_vectors():
    critic = made("penalty").critic
    real_BP, made_BP = vectors(seed=3), vectors(seed=4)
    share_B = torch.rand(5, dtype=torch.float64)
    found_B = gradient_penalty(critic.score(LABELS_B), real_BP, made_BP, share_B)
    between_BP = share_B[:, None] * real_BP + (1 - share_B[:, None]) * made_BP
    expected_B = (gradients_by_hand(critic, between_BP).norm(dim=1) - 1) ** 2
    torch.testing.assert_close(found_B, expected_B)


@pytest.mark.parametrize("kind", CRITICS)
def test_in_one_loss_each_network_has_a_gradient_of_its_own_terms(kind):
    adversary = made(kind)
    real_BP, noise_BN = vectors(seed=3), vectors(size=2)
    made_BP = adversary.generator(LABELS_B, noise_BN)
    score = adversary.critic.score(LABELS_B)
    loss = single_loss(score, real_BP, made_BP).sum()
    critics = [adversary.critic.first.weight, adversary.critic.second.weight]
    generators = list(adversary.generator.parameters())
    found = torch.autograd.grad(loss, [*critics, *generators], retain_graph=True)
    hinges = (1 + score(real_BP)).relu() + (1 - score(made_BP.detach())).relu()
    assert float(loss.detach()) == pytest.approx(float(hinges.sum().detach()))
    wanted = torch.autograd.grad(hinges.sum(), critics)
    wanted += torch.autograd.grad(score(made_BP).sum(), generators)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_spectral_layer_divides_by_the_largest_singular_value():
    torch.manual_seed(1)
    layer = SpectralLinear(4, 6).double()
    for _ in range(200):
        layer.count_examples(3)
    before = layer.u_O.clone()
    inputs_BI = vectors(size=4).requires_grad_()
    found = layer(inputs_BI)
    assert torch.equal(layer.u_O, before)  # no pass changes what another sees
    weight = layer.weight.detach().requires_grad_()
    unit = weight / torch.linalg.matrix_norm(weight, 2)
    expected = torch.nn.functional.linear(inputs_BI, unit, layer.bias)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    (gradient,) = torch.autograd.grad(found.square().sum(), layer.weight)
    (wanted,) = torch.autograd.grad(expected.square().sum(), weight)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", CRITICS)
def test_a_loss_is_of_one_example_whatever_stands_beside_it(kind):
    adversary = made(kind)
    real_BP = vectors(seed=3)
    drawn = torch.cat([vectors(size=2), torch.rand(5, 1, dtype=torch.float64)], 1)
    made_BP, loss_B = adversary(real_BP, LABELS_B, drawn)
    assert not made_BP.requires_grad
    for row in range(5):
        place = slice(row, row + 1)
        own_BP, own_B = adversary(real_BP[place], LABELS_B[place], drawn[place])
        torch.testing.assert_close(own_BP[0], made_BP[row])
        torch.testing.assert_close(own_B[0], loss_B[row])


@pytest.mark.parametrize("kind", CRITICS)
def test_it_is_as_precise_as_its_weights_under_autocast_too(kind):
    adversary = made(kind).float()
    real_BP = vectors(seed=3).float()
    drawn = torch.cat([vectors(size=2).float(), torch.rand(5, 1)], 1)
    expected_BP, expected_B = adversary(real_BP, LABELS_B, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        made_BP, loss_B = adversary(real_BP, LABELS_B, drawn)
    assert torch.equal(made_BP, expected_BP)
    assert torch.equal(loss_B, expected_B)


def test_a_layer_that_takes_its_weights_from_a_file_draws_nothing():
    before = torch.get_rng_state()
    with Undrawn():
        SpectralLinear(20, 30)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", CRITICS)
def test_the_generator_finds_a_cluster_for_each_label(kind):
    rate = 1e-3
    steps = 400
    if kind == "normalised":  # its circles widen with the rate and the steps
        rate = 1e-4
        steps = 250
    torch.manual_seed(2)
    adversary = Adversary(2, 2, 2, kind, 1.0)
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.5]])
    optimizer = torch.optim.Adam(adversary.parameters(), lr=rate, betas=(0.5, 0.99))
    labels_B = torch.arange(64) % 2
    found = []
    for _ in range(steps):
        real_BP = centres[labels_B] + 0.3 * torch.randn(64, 2)
        made_BP, loss_B = adversary(real_BP, labels_B, None)
        optimizer.zero_grad()
        loss_B.mean().backward()
        optimizer.step()
        for layer in adversary.modules():
            if isinstance(layer, SpectralLinear):
                layer.count_examples(64)
        found.append(torch.stack([made_BP[labels_B == label].mean(0) for label in (0, 1)]))
    start_L = (found[0] - centres).norm(dim=1)
    means = torch.stack(found[-200:]).mean(0)  # the generator goes round them
    assert bool(((means - centres).norm(dim=1) < start_L / 2).all())
