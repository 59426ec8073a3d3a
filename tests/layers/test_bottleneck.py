"""The information bottleneck: its KL against torch.distributions, its noise in training alone, and
by the seeds of the rows."""

import torch
from torch.distributions import Normal, kl_divergence

from nlpkit.layers.bottleneck import Bottleneck


def made():
    torch.manual_seed(1)
    layer = Bottleneck(4).double()
    return layer, torch.randn(6, 4, dtype=torch.float64)


def test_the_cost_is_the_divergence_from_a_standard_normal():
    layer, features_BD = made()
    mean_BD, log_variance_BD = layer.posterior(features_BD).chunk(2, 1)
    posterior = Normal(mean_BD, (log_variance_BD / 2).exp())
    expected_B = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    for is_training in (True, False):
        _, kl_B = layer.train(is_training)(features_BD)
        torch.testing.assert_close(kl_B, expected_B, rtol=1e-12, atol=1e-12)


def test_what_is_drawn_is_normal_and_only_in_training():
    layer, features_BD = made()
    mean_BD, log_variance_BD = layer.posterior(features_BD).chunk(2, 1)
    found_BD, _ = layer.eval()(features_BD)
    assert torch.equal(found_BD, mean_BD)
    drawn = layer.train()(features_BD[:1].expand(20_000, 4))[0]
    torch.testing.assert_close(drawn.mean(0), mean_BD[0], rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.var(0), log_variance_BD[0].exp(), rtol=0.05, atol=0)


def test_a_row_is_drawn_by_its_own_seed():
    layer, features_BD = made()
    seed_B = torch.tensor([5, 2**62, 0, 7, 5, 1])
    together = layer.train()(features_BD, seed_B)[0]
    for number, seed in enumerate(seed_B):
        alone = layer(features_BD[number : number + 1], seed[None])[0]
        torch.testing.assert_close(alone[0], together[number], rtol=1e-12, atol=1e-12)
    noise_BD = together - layer.eval()(features_BD)[0]
    assert not torch.equal(noise_BD[0], noise_BD[1])
    many_BD = features_BD[:1].expand(5_000, 4)
    drawn_BD = layer.train()(many_BD, torch.arange(5_000))[0]
    mean_BD, log_variance_BD = layer.posterior(many_BD).chunk(2, 1)
    torch.testing.assert_close(drawn_BD.mean(0), mean_BD[0], rtol=0, atol=0.1)
    torch.testing.assert_close(drawn_BD.var(0), log_variance_BD[0].exp(), rtol=0.1, atol=0)
