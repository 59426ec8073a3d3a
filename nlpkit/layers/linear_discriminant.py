r"""A linear classifier in closed form: the features of every label are taken for normal, with a
mean of their own and one covariance that all labels share.

    p(x | c) = N(m_c, S)
    log p(c | x) = w_c x + b_c - log of the sum over the labels,
    w_c = S^-1 (m_c - m)        b_c = log(n_c / n) - w_c (m_c + m) / 2

m_c is the mean of the n_c examples of label c, m that of all n, S the mean of the covariances
within the labels, each by its share of examples. With few examples S is shrunk:

    S = (1 - shrinkage) S + shrinkage diag(S) + 1e-6 mean(diag(S)) I

The diagonal keeps each feature's own unit; the last part is for features that never vary. All
follows from sums over the examples (`add`), so that memory does not grow with them, and neither
their order nor how they are cut to batches counts, but for rounding in float64.

Source: https://kexue.fm/archives/8578, of two labels: w_1 - w_0 = S^-1 (m_1 - m_0).
Differs from it: any number of labels; the shrinkage, and m, which is taken off all labels alike so
that the weights are small enough for float32.
Legend: B examples, D features, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FLOOR = 1e-6


@dataclass
class Sums:
    """Of the examples so far, in float64: how many each label has, and the sums of their features
    and of the products of two features."""

    counts_L: torch.Tensor
    features_LD: torch.Tensor
    products_DD: torch.Tensor

    @classmethod
    def of_none(cls, labels: int, features: int, device: torch.device) -> Sums:
        """The sums before the first example."""
        none = torch.zeros((), dtype=torch.float64, device=device)
        return cls(
            counts_L=none.new_zeros(labels),
            features_LD=none.new_zeros(labels, features),
            products_DD=none.new_zeros(features, features),
        )

    def add(self, features_BD: torch.Tensor, labels_B: torch.Tensor) -> None:
        """Counts some examples in."""
        features_BD = features_BD.double()
        self.counts_L += labels_B.bincount(minlength=len(self.counts_L))
        self.features_LD.index_add_(0, labels_B, features_BD)
        self.products_DD += features_BD.T @ features_BD


def solve(sums: Sums, shrinkage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight_LD, bias_L) in float64, for shrinkage from above 0 to 1; a label without an example
    has the bias -inf."""
    share_L = sums.counts_L / sums.counts_L.sum()
    mean_LD = sums.features_LD / sums.counts_L.clamp_min(1)[:, None]
    mean_D = share_L @ mean_LD
    between_DD = (mean_LD * share_L[:, None]).T @ mean_LD
    within_DD = sums.products_DD / sums.counts_L.sum() - between_DD
    variance_D = within_DD.diagonal().clamp_min(0)
    floor = FLOOR * float(variance_D.mean()) or FLOOR
    covariance_DD = (1 - shrinkage) * within_DD
    covariance_DD += torch.diag(shrinkage * variance_D + floor)
    weight_LD = torch.linalg.solve(covariance_DD, (mean_LD - mean_D).T).T.contiguous()
    bias_L = share_L.log() - (weight_LD * (mean_LD + mean_D)).sum(1) / 2
    return weight_LD, bias_L
