r"""Losses in units of what a prediction without looking would cost: w_i = 1 / L_i^prior.

L_i^prior is the loss of the best prediction that is the same for every input, which follows from
the answers alone, in nats:

    a label (classification)       - sum_l p_l log p_l         p_l: share of label l in the data
    a number, by squared error     its variance

It is given, not computed, since only such losses have one that all agree on. Source:
https://kexue.fm/archives/8870.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from nlpkit.config import Range
from nlpkit.errors import SettingsError


@dataclass(frozen=True)
class Balance:
    """Needs to be told the losses."""

    losses: tuple[Annotated[float, Range(above=0, most=1e9)], ...] = ()
    """L_i^prior of each loss, in the order of the tasks, or of the losses of the model."""

    def check(self, model: Any) -> None:
        """Raises SettingsError where there is not one for each loss of the model."""
        names = model.loss_names
        if len(self.losses) != len(names):
            raise SettingsError(
                f"train.balance: prior.losses: expected {len(names)} numbers, for "
                f"{', '.join(names)}, got {len(self.losses)}",
                hint=f'e.g. train.balance="prior(losses={[1.0] * len(names)})"',
            )

    def weights(
        self,
        losses_L: torch.Tensor,
        gram: Callable[[], torch.Tensor],
        memory: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """1 / L_i^prior: (L,), the same in every step."""
        return 1 / losses_L.new_tensor(self.losses)
