"""What a student learns from a teacher: to say of the text under each piece what the teacher says
of the piece.

    predicted = W mean(hidden of the student's tokens under the piece) + b        W, b are learned
    target    = (hidden of the teacher's piece - mean) / deviation       in each of its H dimensions
    loss of a piece = mean over dimensions, and over the middle and the last layer, of
                      (predicted - target)^2
    loss of a block = mean over its pieces

The student reads the block with words masked, the teacher the clean text (Baevski et al. 2022,
data2vec, arxiv.org/abs/2202.03555; Jiao et al. 2019, TinyBERT, arxiv.org/abs/1909.10351, equation
8, has the projection). So one pass of the student serves this loss and that of the masked words.
Steps of prefixes and of replaced tokens have no such loss.

Why targets are centred and scaled: the vectors of an encoder may have most of their length in
common, and some dimensions vary several times as much as others. A cosine, or a squared error after
layer normalisation, would be small for a student that has learned the mean alone, and few
dimensions would decide the rest. So centred and scaled the loss is the share of the teacher's
variance that the student does not explain: 1 for the mean alone, 0 for all of it.

B blocks, T tokens, P pieces, H hidden, L layers that are taught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from nlpkit.pretraining.teacher import Lesson, Teacher, taught_layers


class Distillation(nn.Module):
    """The projections from a student to a teacher, one for each layer that is taught, and the means
    and deviations of the teacher's vectors.

    The teacher itself is no part of the module.
    """

    mean_LH: torch.Tensor
    deviation_LH: torch.Tensor

    def __init__(self, encoder: Any, teacher: Teacher):
        super().__init__()
        self.teacher = teacher
        self.numbers = taught_layers(encoder.depth)
        size = teacher.encoder.hidden_size
        self.projections = nn.ModuleList(nn.Linear(encoder.hidden_size, size) for _ in self.numbers)
        self.register_buffer("mean_LH", torch.zeros(len(self.numbers), size))
        self.register_buffer("deviation_LH", torch.ones(len(self.numbers), size))

    @torch.no_grad()
    def measure(self, lesson: Lesson) -> None:
        """Takes mean and deviation of the teacher's vectors from this lesson, all pieces alike.

        A dimension that hardly moves is scaled as one with a hundredth of the mean deviation.
        """
        vectors_LPH = torch.stack(self.teacher.vectors(lesson)).double()
        deviation_LH, mean_LH = torch.std_mean(vectors_LPH, 1, correction=0)
        least_L1 = 0.01 * deviation_LH.mean(1, keepdim=True) + 1e-6
        self.mean_LH.copy_(mean_LH)
        self.deviation_LH.copy_(torch.maximum(deviation_LH, least_L1))

    def forward(self, lesson: Lesson, student: Sequence[torch.Tensor]) -> torch.Tensor:
        """loss_B of the blocks; 0 for one without pieces. `student` has hidden_BTH of the student's
        layers `numbers`."""
        errors = [
            (predicted_PH - target_PH).square().mean(1)
            for predicted_PH, target_PH in self.pairs(lesson, student)
        ]
        error_P = torch.stack(errors).mean(0)
        sums_B = error_P.new_zeros(lesson.rows).index_add(0, lesson.row_P, error_P)
        return sums_B / torch.bincount(lesson.row_P, minlength=lesson.rows).clamp(min=1)

    def pairs(
        self, lesson: Lesson, student: Sequence[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(predicted_PH, target_PH) for each layer, in the type of the projections."""
        found = []
        dtype = self.mean_LH.dtype
        for index, target_PH in enumerate(self.teacher.vectors(lesson)):
            hidden_MH = student[index].flatten(0, 1).to(dtype)
            # a bag is a piece: the mean of the tokens under it
            mean_PH = nn.functional.embedding_bag(
                lesson.covered_K, hidden_MH, lesson.first_P, mode="mean"
            )
            predicted_PH = self.projections[index](mean_PH).to(dtype)
            target_PH = (target_PH.to(dtype) - self.mean_LH[index]) / self.deviation_LH[index]
            found.append((predicted_PH, target_PH))
        return found


def teacher_figures(
    model: Any, batches: Iterable[Any], autocast: Callable[[], Any]
) -> dict[str, float]:
    """Of batches of masked words with lessons, what a `Pretrainer` has of its teacher: the mean
    over the pieces of the loss, and of the cosine of prediction and target of the last layer."""
    loss, similarity, pieces = 0.0, 0.0, 0
    for batch in batches:
        with torch.inference_mode(), autocast():
            pairs = model.distillation.pairs(batch.lesson, model.taught_layers(batch))
        for predicted_PH, target_PH in pairs:
            loss += (predicted_PH - target_PH).square().mean(1).sum().item() / len(pairs)
        similarity += nn.functional.cosine_similarity(*pairs[-1]).sum().item()
        pieces += len(batch.lesson.row_P)
    return {
        "teacher_loss": round(loss / max(1, pieces), 4),
        "teacher_similarity": round(similarity / max(1, pieces), 4),
    }
