"""A short pretraining in this process: its text, and its weights at the end or where it is stopped."""

from nlpkit.inference.devices import accelerator_for
from nlpkit.pretraining.resume import open_pretraining


def write_bookshops(path):
    """2,100 short lines of one pattern; returns their file as a string."""
    lines = []
    for number in range(1200, 1900):
        for name, place in (("王小明", "北京"), ("李雷", "上海"), ("韩梅梅", "天津")):
            lines.append(f"{number}年，{name}在{place}开了一家书店，后来又写了一本书。")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def opened(plan):
    """The pretraining of a plan, new or gone on with, in float32."""
    return open_pretraining(plan, accelerator_for("cpu", "fp32"))


def weights(made, stop=None):
    """The weights after the training, or after the step at which it is told to stop."""
    for event in made.events():
        made.state.interrupted = event.step == stop
    return {name: tensor.clone() for name, tensor in made.state.model.state_dict().items()}
