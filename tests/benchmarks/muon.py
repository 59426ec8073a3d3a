"""Muon's update of all matrices of an encoder against the iteration as it is published, whose results
it must have to 1e-4: `python tests/benchmarks/muon.py [ENCODER]`; processor milliseconds, median of
nine, in turns."""

import statistics
import sys
import time

import torch

from nlpkit import encoders
from nlpkit.encoders.by_name import settings_of
from nlpkit.optim.groups import parameter_groups
from nlpkit.optim.muon import orthogonal

PUBLISHED = (3.4445, -4.7750, 2.0315)


def published(matrix):
    a, b, c = PUBLISHED
    wide = matrix.shape[0] <= matrix.shape[1]
    found = matrix if wide else matrix.T
    found = found / (found.norm() + 1e-7)
    for _ in range(5):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found if wide else found.T


def main():
    torch.set_num_threads(1)
    name = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    model = torch.nn.Module()
    model.encoder = encoders.load(name, settings_of(name)())[0]
    matrices = []
    for group in parameter_groups(model, 1.0, 0.0, 1.0, ()):
        if group.hidden:
            matrices += [torch.randn(parameter.shape) for parameter in group.parameters]
    ways = {"published": published, "nlpkit": orthogonal}
    for matrix in matrices:
        torch.testing.assert_close(orthogonal(matrix), published(matrix), rtol=0, atol=1e-4)
    times = {way: [] for way in ways}
    for _ in range(9):
        for way, update in ways.items():
            started = time.process_time()
            for matrix in matrices:
                update(matrix)
            times[way].append(1000 * (time.process_time() - started))
    base = statistics.median(times["published"])
    for way, found in times.items():
        middle = statistics.median(found)
        print(f"{way:10} {middle:8.1f} ms   {base / middle:.2f} times as fast")


if __name__ == "__main__":
    main()
