"""The information bottleneck: its KL against torch.distributions, its noise in training alone."""

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
