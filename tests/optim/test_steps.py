"""Every optimizer and wrapper against its equations, written out plainly, in float64."""

import math

import pytest
import torch
from torch import nn

from nlpkit import optim
from nlpkit.config import build
from nlpkit.errors import SettingsError
from nlpkit.optim import wrappers
from nlpkit.optim.groups import Group
from nlpkit.optim.wrapped import Wrapped
from nlpkit.training.settings import TrainConfig

RATE, DECAY, STEPS = 0.03, 0.1, 7


@pytest.fixture(autouse=True)
def exact():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Mlp(nn.Module):
    """Token rows, a layer, an output; some tokens are in no batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.rows = nn.Embedding(9, 4)
        self.layer = nn.Linear(4, 5)
        self.output = nn.Linear(5, 2)

    def loss(self, step):
        generator = torch.Generator().manual_seed(step)
        token_ids = torch.randint(0, 6, (4,), generator=generator)
        wanted = torch.randn(4, 2, generator=generator)
        return (self.output(torch.tanh(self.layer(self.rows(token_ids)))) - wanted).square().mean()


class Quadratic(nn.Module):
    """0.5 w A w - b w, with an A and a b for every step; w has three parts, one of them of 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        parts = [torch.randn(2, 3), torch.randn(2), torch.zeros(2, 2)]
        self.parts = nn.ParameterList(nn.Parameter(part) for part in parts)

    def loss(self, step):
        generator = torch.Generator().manual_seed(step)
        w = torch.cat([part.flatten() for part in self.parts])
        root = torch.randn(len(w), len(w), generator=generator)
        return 0.5 * (root @ w).square().sum() - torch.randn(len(w), generator=generator) @ w


MODELS = [Mlp, Quadratic]


def wrapped(model, name, *calls):
    """An optimizer of a model: matrices decay, vectors do not."""
    parts = {True: [], False: []}
    for parameter in model.parameters():
        parts[parameter.dim() > 1].append(parameter)
    groups = [Group(RATE, DECAY * decays, False, [], some) for decays, some in parts.items()]
    optimizer = optim.new_optimizer(name, groups, bf16=False)
    return Wrapped(optimizer, optim.moments(name), model, calls)


def trained(model_class, name, *calls, steps=STEPS):
    """The weights after some steps, one list for each step."""
    model = model_class()
    optimizer = wrapped(model, name, *calls)
    seen = []
    for step in range(steps):
        model.zero_grad()
        model.loss(step).backward()
        optimizer.step()
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
    return seen


def by_equations(model_class, move, steps=STEPS):
    """The same, where `move(weights, gradient, memory, step, decay)` gives a parameter's weights
    after a step, counted from 1; `memory` is a dict of its own."""
    model = model_class()
    parameters = list(model.parameters())
    memories = [{} for _ in parameters]
    seen = []
    for step in range(steps):
        gradients = torch.autograd.grad(model.loss(step), parameters)
        for parameter, gradient, memory in zip(parameters, gradients, memories, strict=True):
            decay = DECAY if parameter.dim() > 1 else 0.0
            weights = parameter.detach().clone()
            parameter.data = move(weights, gradient, memory, step + 1, decay)
        seen.append([parameter.detach().clone() for parameter in parameters])
    return seen


def assert_equal(found, wanted, rtol=1e-9, atol=1e-12):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


def sgdm(w, g, memory, step, decay):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    return w - RATE * (memory["m"] + decay * w)


def lion(w, g, memory, step, decay):
    m = memory.get("m", torch.zeros_like(w))
    memory["m"] = 0.99 * m + 0.01 * g
    return w - RATE * (torch.sign(0.9 * m + 0.1 * g) + decay * w)


def adam_direction(g, memory, step, epsilon):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    return memory["m"] / (1 - 0.9**step) / ((memory["v"] / (1 - 0.999**step)).sqrt() + epsilon)


def adamw(w, g, memory, step, decay):
    return w - RATE * (adam_direction(g, memory, step, 1e-8) + decay * w)


def lamb(w, g, memory, step, decay):
    update = adam_direction(g, memory, step, 1e-6) + decay * w
    norms = float(w.norm()), float(update.norm())
    trust = norms[0] / norms[1] if w.dim() > 1 and all(norms) else 1.0
    return w - RATE * trust * update


OPTIMIZERS = {"sgdm": sgdm, "lion": lion, "adamw": adamw, "lamb": lamb}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_does_what_its_equations_say(name, model):
    # torch counts steps in float32, whose powers of 0.999 have fewer digits
    rtol = 1e-6 if name in ("adamw", "lamb") else 1e-9
    assert_equal(trained(model, name), by_equations(model, OPTIMIZERS[name]), rtol, atol=1e-7)


@pytest.mark.parametrize("name", ["sgdm", "adamw", "muon"])
@pytest.mark.parametrize("model", MODELS)
def test_lookahead_goes_back_to_the_slow_weights(name, model):
    k, alpha = 3, 0.3
    fast = model()
    optimizer = wrapped(fast, name)
    slow = [parameter.detach().clone() for parameter in fast.parameters()]
    wanted = []
    for step in range(STEPS):
        fast.zero_grad()
        fast.loss(step).backward()
        optimizer.step()
        if (step + 1) % k == 0:
            for number, parameter in enumerate(fast.parameters()):
                slow[number] = slow[number] + alpha * (parameter.detach() - slow[number])
                parameter.data = slow[number].clone()
        wanted.append([parameter.detach().clone() for parameter in fast.parameters()])
    assert_equal(trained(model, name, f"lookahead(k={k}, alpha={alpha})"), wanted)


def test_idle_rows_keep_weights_and_moments():
    def lazy(w, g, memory, step, decay):
        if w.shape != (9, 4):
            return adamw(w, g, memory, step, decay)
        before = {name: tensor.clone() for name, tensor in memory.items()}
        moved = adamw(w, g, memory, step, decay)
        for row in range(9):
            if not g[row].any():
                moved[row] = w[row]
                for name in memory:
                    memory[name][row] = before[name][row] if before else 0
        return moved

    found = trained(Mlp, "adamw", "lazy_embeddings")
    assert_equal(found, by_equations(Mlp, lazy), rtol=1e-6, atol=1e-7)
    assert torch.equal(found[-1][0][6:], Mlp().rows.weight[6:])  # tokens that never were
    plain = trained(Mlp, "adamw")
    assert not torch.equal(plain[-1][0][6:], Mlp().rows.weight[6:])
    with pytest.raises(SettingsError, match="lazy_embeddings: the model has no embedding table"):
        trained(Quadratic, "adamw", "lazy_embeddings")


def test_every_gradient_gets_the_same_norm():
    for power in (1.0, 0.5):

        def move(*arguments, power=power):
            w, g, *rest = arguments
            return sgdm(w, g / g.norm() ** power, *rest)

        for model in MODELS:
            found = trained(model, "sgdm", f"normalized_gradients(power={power})")
            assert_equal(found, by_equations(model, move))


@pytest.mark.parametrize("product", ["sign", "plain"])
@pytest.mark.parametrize("model", MODELS)
def test_step_sizes_learn_by_products_of_successive_gradients(model, product):
    gamma, most = 0.4, 1.7
    sizes = []

    def move(w, g, memory, step, decay):
        log_size = memory.get("log_size", torch.zeros_like(w))
        if "g" in memory:
            p = memory["g"] * g
            log_size = log_size + gamma * (torch.sign(p) if product == "sign" else p)
        memory["log_size"] = log_size.clamp(-math.log(most), math.log(most))
        memory["g"] = g
        sizes.append(memory["log_size"])
        return w + memory["log_size"].exp() * (sgdm(w, g, memory, step, decay) - w)

    call = f'exponentiated_gradient(gamma={gamma}, most={most}, product="{product}")'
    assert_equal(trained(model, "sgdm", call), by_equations(model, move))
    assert max(float(size.max()) for size in sizes) > 0.1
    assert min(float(size.min()) for size in sizes) < -0.1


def accumulated(model_class, name, k, groups):
    """The weights after each of some updates, each along the mean of k gradients."""
    model = model_class()
    optimizer = wrapped(model, name)
    seen = []
    for group in range(groups):
        model.zero_grad()
        for step in range(group * k, group * k + k):
            (model.loss(step) / k).backward()
        optimizer.step()
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
    return seen


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("k", [2, 3])
def test_accumulation_hidden_in_momentum_is_exact_for_sgdm(k, model):
    found = trained(model, "sgdm", f"hidden_accumulation(steps={k})", steps=3 * k + 1)
    assert_equal(found[k - 1 :: k], accumulated(model, "sgdm", k, 3), atol=1e-13)
    for step in range(3 * k):
        start = list(map(torch.clone, found[step - 1])) if step else list(model().parameters())
        moved = any(not torch.equal(a, b) for a, b in zip(start, found[step], strict=True))
        assert moved == ((step + 1) % k == 0)


@pytest.mark.parametrize(("name", "epsilon"), [("adamw", 1e-8), ("lamb", 1e-6)])
@pytest.mark.parametrize("model", MODELS)
def test_accumulation_hidden_in_adam_takes_the_mean_of_the_squares(name, epsilon, model):
    k = 3

    def move(w, g, memory, step, decay):
        first = step % k == 1
        memory["m"] = (0.9 if first else 1) * memory.get("m", 0) + 0.1 / k * g
        memory["v"] = (0.999 if first else 1) * memory.get("v", 0) + 0.001 / k * g**2
        if step % k:
            return w
        mean = memory["m"] / (1 - 0.9 ** (step // k))
        square = memory["v"] / (1 - 0.999 ** (step // k))
        update = mean / (square.sqrt() + epsilon) + decay * w
        trust = 1.0
        if name == "lamb" and w.dim() > 1 and w.any():
            trust = float(w.norm() / update.norm())
        return w - RATE * trust * update

    found = trained(model, name, f"hidden_accumulation(steps={k})", steps=10)
    assert_equal(found, by_equations(model, move, steps=10), rtol=1e-6, atol=1e-7)


def test_a_parameter_that_some_steps_do_not_reach_is_accumulated_too():
    class Sometimes(Mlp):
        def loss(self, step):
            if step % 3 == 1:
                return super().loss(step)
            return self.output(torch.ones(5)).square().sum()

    found = trained(Sometimes, "sgdm", "hidden_accumulation(steps=3)", steps=6)
    assert_equal(found[2::3], accumulated(Sometimes, "sgdm", 3, 2), atol=1e-13)


def test_hidden_accumulation_counts_updates_for_a_lookahead_within():
    calls = ["lookahead(k=2, alpha=0.3)", "hidden_accumulation(steps=3)"]
    found = trained(Mlp, "sgdm", *calls, steps=12)
    merged = [accumulated(Mlp, "sgdm", 3, 1)[0]]
    assert_equal(found[2:3], merged, atol=1e-13)
    start = list(Mlp().parameters())
    fast = accumulated(Mlp, "sgdm", 3, 2)[1]
    slow = [a.detach() + 0.3 * (b - a.detach()) for a, b in zip(start, fast, strict=True)]
    assert_equal(found[5:6], [slow], atol=1e-13)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("lookahead(k=1, alpha=1)", ("adamw", "muon", "sgdm")),
        ("lookahead(alpha=1)", ("adamw", "muon")),
        ("hidden_accumulation(steps=1)", ("adamw", "lamb", "sgdm")),
        ("exponentiated_gradient(gamma=0)", ("adamw", "muon")),
        ("normalized_gradients(power=0)", ("adamw", "muon")),
    ],
)
def test_wrappers_at_strength_0_change_no_bit(call, names):
    for name in names:
        for one, other in zip(trained(Mlp, name), trained(Mlp, name, call), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["muon", "lion"])
def test_accumulation_is_refused_where_the_gradient_counts_by_itself(name):
    with pytest.raises(SettingsError, match=f"hidden_accumulation: {name} needs each gradient"):
        trained(Mlp, name, "hidden_accumulation")


@pytest.mark.parametrize(
    ("calls", "says"),
    [
        (["lokahead"], 'train.wrappers: expected some of .*"lokahead"; did you mean "lookahead"'),
        (["lookahead(kk=1)"], 'unknown setting "train.wrappers: lookahead.kk"'),
        (["lookahead(k=0)"], "train.wrappers: lookahead.k: expected at least 1, got 0"),
        (["lookahead(alpha=1.5)"], "lookahead.alpha: expected at most 1"),
        (["lookahead(k=1"], "train.wrappers: expected name.argument=value"),
        (['exponentiated_gradient(product="sing")'], 'product: .*did you mean "sign"'),
        (["hidden_accumulation", "lookahead"], "hidden_accumulation: expected to be the last"),
        (["lazy_embeddings", "hidden_accumulation"], "after none but lookahead, got lazy_"),
    ],
)
def test_an_unknown_or_broken_wrapper_is_named(calls, says):
    with pytest.raises(SettingsError, match=says):
        build(TrainConfig, {"wrappers": calls}, "train")


def test_every_wrapper_is_in_the_table_of_the_package():
    for name in wrappers.names():
        assert f"| `{name}` |" in wrappers.__doc__
    for name in optim.names():
        assert f"| `{name}` |" in optim.__doc__
