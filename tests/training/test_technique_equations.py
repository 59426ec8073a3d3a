"""Each technique against its equation: the gradient of the whole batch, as autograd finds it without
any cutting, on a small network in float64."""

import copy
import threading
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from nlpkit.errors import SettingsError
from nlpkit.training.distributions import kl_divergence
from nlpkit.training.gradient_penalty import twice_differentiable
from nlpkit.training.perturbation import random_like, unit
from nlpkit.training.settings import TrainConfig
from nlpkit.training.state import TrainState
from nlpkit.training.step import TrainingStep

EXAMPLES = 11
TABLE = "encoder.table.weight"
CUTS = (1, 2, 5)


@dataclass
class Batch:
    token_ids_BT: torch.Tensor
    labels_B: torch.Tensor

    def to(self, device):
        return self


class Encoder(nn.Module):
    depth = 1

    def __init__(self, dropout):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(4, 5)

    def depth_of(self, name):
        return 0

    def forward(self, token_ids_BT):
        return self.layer(self.dropout(self.table(token_ids_BT).mean(1))).tanh()


class Network(nn.Module):
    """A classifier of three labels, which predicts distributions."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(3)
        self.encoder = Encoder(dropout)
        self.head = nn.Linear(5, 3)
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= 3  # so that the second derivatives are large

    def outputs(self, batch):
        return self.head(self.encoder(batch.token_ids_BT))

    def log_probs(self, logits):
        return logits.log_softmax(1)[:, None]

    def forward(self, batch):
        return nn.functional.cross_entropy(self.outputs(batch), batch.labels_B, reduction="none")


class Accelerator:
    """One process, or one of those that share `others`: a list that has a place for each."""

    device = torch.device("cpu")
    mixed_precision = "no"

    def __init__(self, index=0, others=None, barrier=None):
        self.process_index = index
        self.others = others or [None]
        self.num_processes = len(self.others)
        self.barrier = barrier
        self.autocast = nullcontext

    def reduce(self, tensor, how):
        if self.barrier is None:
            return tensor
        self.others[self.process_index] = tensor
        self.barrier.wait()
        total = sum(self.others[1:], self.others[0].clone())
        self.barrier.wait()
        return total


def step_of(*calls, model=None, accelerator=None):
    config = TrainConfig(
        techniques=calls, optimizer="adamw", learning_rate=1e-3, clip_norm=0.0, seed=4
    )
    state = TrainState(model or Network(), config, 100, accelerator or Accelerator())
    return TrainingStep(state)


def whole_batch():
    generator = torch.Generator().manual_seed(1)
    token_ids_BT = torch.randint(9, (EXAMPLES, 6), generator=generator)
    return Batch(token_ids_BT, torch.randint(3, (EXAMPLES,), generator=generator))


def pieces(cuts):
    batch = whole_batch()
    tokens = batch.token_ids_BT.tensor_split(cuts)
    labels = batch.labels_B.tensor_split(cuts)
    return [Batch(*pair) for pair in zip(tokens, labels, strict=True)]


def gradient_of(step, cuts=1):
    """(mean loss, gradient of the step by name)."""
    step.state.optimizer.zero_grad()
    torch.manual_seed(8)
    total = step.combine(step.backward(lambda: pieces(cuts)))
    named = step.state.model.named_parameters()
    return total.loss, {name: p.grad.clone() for name, p in named}


def autograd_of(loss, model):
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


def plain():
    model = Network()
    return autograd_of(model(whole_batch()).mean(), model)


def moved(model, **changes):
    """The model's weights with some of them changed, by name with `_` for `.`."""
    return {**dict(model.named_parameters()), **changes}


def penalised(names, factor):
    """Mean loss + factor * squared norm of its gradient by some parameters, and its gradient."""
    model = Network()
    loss = model(whole_batch()).mean()
    chosen = [p for name, p in model.named_parameters() if names is None or name in names]
    first = torch.autograd.grad(loss, chosen, create_graph=True)
    loss = loss + factor * sum(g.square().sum() for g in first)
    return float(loss.detach()), autograd_of(loss, model)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(
    ("call", "names", "factor"),
    [
        ("embedding_gradient_penalty(weight=0.7)", [TABLE], 0.35),
        ("parameter_gradient_penalty(weight=0.7)", None, 0.175),
    ],
)
def test_a_gradient_penalty_has_the_gradient_of_the_penalised_loss(call, names, factor, cuts):
    loss, gradient = gradient_of(step_of(call), cuts)
    expected_loss, expected = penalised(names, factor)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert_close(gradient, expected)
    assert float((gradient[TABLE] - plain()[TABLE]).norm()) > 0.01


@pytest.mark.parametrize(
    "calls",
    [
        ["embedding_gradient_penalty(weight=0.7)"],
        ["parameter_gradient_penalty(weight=0.7)"],
        ["rdrop(weight=2.0)"],
        ["rdrop", "parameter_gradient_penalty(weight=0.7)", "flooding(level=100)"],
    ],
)
def test_the_gradient_is_that_of_the_loss_that_is_told(calls):
    """By differences, with dropout: all passes of a step draw the same."""
    model = Network(dropout=0.3)
    step = step_of(*calls, model=model)
    loss, gradient = gradient_of(step, 2)
    direction = [torch.randn_like(p) for p in model.parameters()]
    slope = sum(float((g * d).sum()) for g, d in zip(gradient.values(), direction, strict=True))
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, change in zip(model.parameters(), direction, strict=True):
                parameter += sign * (1e-5 if sign > 0 else 2e-5) * change
        losses.append(gradient_of(step, 2)[0])
    found = (losses[0] - losses[1]) / 2e-5
    if "flooding(level=100)" in calls:
        found = -found  # it climbs
    assert found == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert losses[0] != loss


@pytest.mark.parametrize("cuts", CUTS)
def test_pgd_climbs_and_stays_in_the_ball(cuts):
    model = Network()
    original = model.encoder.table.weight.detach().clone()
    table = original
    norms = []
    for number in range(5):
        table = table.clone().requires_grad_()
        loss = functional_call(model, moved(model, **{TABLE: table}), (whole_batch(),)).mean()
        if number == 4:
            break
        (g,) = torch.autograd.grad(loss, table)
        change = table.detach() + 0.3 * g / g.norm() - original
        norms.append(float(change.norm()))
        table = original + change * min(1.0, 0.7 / norms[-1])
    assert norms[1] < 0.7 < norms[2]
    weights = moved(model, **{TABLE: table})
    expected = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    step = step_of("pgd(epsilon=0.7, steps=4, step_size=0.3)")
    found_loss, found = gradient_of(step, cuts)
    assert found_loss == pytest.approx(float(loss.detach()), rel=1e-9)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-8)
    assert torch.equal(step.state.model.encoder.table.weight, original)


def test_one_step_of_pgd_is_fgm():
    one = gradient_of(step_of("pgd(epsilon=0.5, steps=1, step_size=0.5)"), 2)
    other = gradient_of(step_of("fgm(epsilon=0.5)"), 2)
    assert one[0] == pytest.approx(other[0], rel=1e-7)
    for name, gradient in other[1].items():  # FGM adds 1e-8 to the norm
        torch.testing.assert_close(one[1][name], gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("cuts", CUTS)
def test_vat_adds_the_divergence_along_the_worst_direction(cuts, iterations):
    model = Network()
    original = model.encoder.table.weight.detach()
    batch = whole_batch()
    p = model.log_probs(model.outputs(batch)).detach()

    def divergence(change):
        weights = moved(model, **{TABLE: model.encoder.table.weight + change})
        logits = functional_call(model, weights, (batch,))
        return kl_divergence(p, logits.log_softmax(1)[:, None]).mean()

    loss_of = model.forward
    model.forward = model.outputs  # for functional_call
    direction = unit(random_like(original, 4, 0))
    for _ in range(iterations):
        change = (0.01 * direction).requires_grad_()
        direction = unit(torch.autograd.grad(divergence(change), change)[0])
    worst = divergence(1.5 * direction)
    random = divergence(1.5 * unit(random_like(original, 4, 0)))
    assert worst > random
    loss = loss_of(batch).mean() + 0.6 * worst
    step = step_of(f"vat(epsilon=1.5, xi=0.01, weight=0.6, iterations={iterations})")
    found_loss, found = gradient_of(step, cuts)
    assert found_loss == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, tensor in autograd_of(loss, model).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7)
    assert torch.equal(step.state.model.encoder.table.weight, original)


@pytest.mark.parametrize("cuts", CUTS)
def test_rdrop_is_the_mean_of_two_passes_and_their_divergence(cuts):
    model = Network(dropout=0.3)
    torch.manual_seed(8)
    losses = []
    for piece in pieces(cuts):
        one, other = model.outputs(piece), model.outputs(piece)
        p, q = one.softmax(1), other.softmax(1)
        divergence = (p * (p / q).log() + q * (q / p).log()).sum(1) / 2
        both = [
            nn.functional.cross_entropy(x, piece.labels_B, reduction="none") for x in (one, other)
        ]
        losses.append(sum(both) / 2 + 1.7 * divergence)
        assert float(divergence.detach().sum()) > 0
    loss = torch.cat(losses).mean()
    found_loss, found = gradient_of(step_of("rdrop(weight=1.7)", model=Network(dropout=0.3)), cuts)
    assert found_loss == pytest.approx(float(loss.detach()), rel=1e-9)
    assert_close(found, autograd_of(loss, model))


def test_rdrop_without_dropout_changes_nothing():
    _, found = gradient_of(step_of("rdrop(weight=5)"), 2)
    assert_close(found, plain())


@pytest.mark.parametrize("cuts", CUTS)
def test_two_rate_flooding_is_a_step_up_and_a_longer_one_down(cuts):
    model = Network()
    before = copy.deepcopy(model.state_dict())
    for rate in (0.05, -0.2):
        gradient = autograd_of(model(whole_batch()).mean(), model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += rate * gradient[name]
    step = step_of("two_rate_flooding(descent=0.2, ascent=0.05)")
    _, found = gradient_of(step, cuts)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(before[name] - 0.15 * found[name], tensor, rtol=0, atol=1e-12)
        assert torch.equal(step.state.model.state_dict()[name], before[name])


def test_two_rate_flooding_is_to_first_order_a_gradient_penalty():
    descent, ascent = 3e-6, 2e-6
    _, found = gradient_of(step_of(f"two_rate_flooding(descent={descent}, ascent={ascent})"))
    _, penalty = penalised(None, ascent * descent / (2 * (descent - ascent)))
    for name, gradient in plain().items():
        extra = penalty[name] - gradient
        torch.testing.assert_close(found[name] - gradient, extra, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("cuts", CUTS)
def test_the_spectral_penalty_has_the_gradient_of_the_squared_norm(cuts):
    step = step_of("spectral_norm(weight=0.3)")
    for _ in range(60):  # of power iteration, while the weights stand still
        found_loss, found = gradient_of(step, cuts)
    model = step.state.model
    norm = torch.linalg.svdvals(model.encoder.layer.weight)[0]
    loss = model(whole_batch()).mean() + 0.3 * norm**2
    assert found_loss == pytest.approx(float(loss.detach()), rel=1e-9)
    assert_close(found, autograd_of(loss, model))
    assert list(step.state.memory) == ["spectral_norm.layer.weight"]


def test_the_spectral_bound_cuts_what_lies_above_it_and_nothing_else():
    for bound, cut in ((1e3, False), (0.8, True)):
        step = step_of(f"spectral_bound(bound={bound})")
        plain_step = step_of()
        for _ in range(60):
            step(lambda: pieces(2))
            plain_step(lambda: pieces(2))
        model, other = step.state.model, plain_step.state.model
        norm = float(torch.linalg.svdvals(model.encoder.layer.weight.detach())[0])
        if cut:
            assert 0.7 < norm < 0.8 * 1.01  # decay may have made it a little smaller
        else:
            assert torch.equal(model.encoder.layer.weight, other.encoder.layer.weight)
        assert model.head.weight.norm() > 0.8  # not of the encoder


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(("norm", "of_start"), [(1.7, "false"), (0.9, "true")])
def test_the_spectral_reparametrisation_has_the_gradient_by_what_is_normalised(
    norm, of_start, cuts
):
    model = Network()
    raw_IO = model.encoder.layer.weight
    start = float(torch.linalg.svdvals(raw_IO.detach())[0])
    wanted_norm = norm * start if of_start == "true" else norm
    with torch.no_grad():
        raw_IO.mul_(wanted_norm / start)  # its length does not matter, but for that of the gradient
    unit_IO = wanted_norm * raw_IO / torch.linalg.matrix_norm(raw_IO, 2)
    weights = moved(model, **{"encoder.layer.weight": unit_IO})
    loss = functional_call(model, weights, (whole_batch(),)).mean()
    wanted = autograd_of(loss, model)
    step = step_of(f"spectral_reparametrisation(norm={norm}, of_start={of_start})")
    found_loss, _ = gradient_of(step, cuts)
    assert found_loss == pytest.approx(float(loss.detach()), rel=1e-9)
    matrix_IO = step.state.model.encoder.layer.weight
    seen = []
    step.state.wrapped.step = lambda: seen.append(matrix_IO.grad.clone())
    step.update()
    torch.testing.assert_close(seen[0], wanted["encoder.layer.weight"], rtol=1e-6, atol=1e-9)
    assert (
        abs(float((seen[0] * matrix_IO.detach()).sum())) < 1e-9
    )  # it makes W neither longer nor shorter


def test_the_spectral_reparametrisation_keeps_the_norm():
    step = step_of("spectral_reparametrisation(norm=1.7)")
    for _ in range(20):
        step(lambda: pieces(2))
    norm = float(torch.linalg.svdvals(step.state.model.encoder.layer.weight.detach())[0])
    assert norm == pytest.approx(1.7, rel=1e-2)
    assert not torch.equal(step.state.model.head.weight, Network().head.weight)


def test_a_penalty_on_top_of_fgm_is_that_of_the_clean_loss():
    calls = ["fgm(epsilon=0.5)", "embedding_gradient_penalty(weight=0.7)"]
    _, both = gradient_of(step_of(*calls), 2)
    _, moved_gradient = gradient_of(step_of(calls[0]), 2)
    _, with_penalty = gradient_of(step_of(calls[1]), 2)
    for name, gradient in plain().items():
        expected = moved_gradient[name] + with_penalty[name] - gradient
        torch.testing.assert_close(both[name], expected, rtol=1e-9, atol=1e-11)


CALLS = [
    "embedding_gradient_penalty(weight=0.5)",
    "parameter_gradient_penalty(weight=0.5)",
    "fgm(epsilon=0.5)",
    "pgd(epsilon=0.5)",
    "rdrop(weight=0.5)",
    "vat(epsilon=0.5)",
    "two_rate_flooding(descent=0.2, ascent=0.05)",
    "spectral_norm(weight=0.1)",
    "spectral_reparametrisation(norm=2.0)",
    "flooding(level=100)",
]


@pytest.mark.parametrize("calls", [*([call] for call in CALLS), CALLS], ids=str)
def test_two_processes_equal_one(calls):
    expected_loss, expected = gradient_of(step_of(*calls), 3)
    others = [None, None]
    barrier = threading.Barrier(2, timeout=60)
    found = [None, None]

    def process(index):
        step = step_of(*calls, model=models[index], accelerator=Accelerator(index, others, barrier))
        share = [pieces(3)[:2], pieces(3)[2:]][index]
        total = step.combine(step.backward(lambda: share))
        found[index] = total.loss, {n: p.grad for n, p in step.state.model.named_parameters()}

    models = [Network(), Network()]
    threads = [threading.Thread(target=process, args=(index,)) for index in range(2)]
    with twice_differentiable():  # torch's switches are of all threads: they are set back here
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for loss, gradient in found:
        assert loss == pytest.approx(expected_loss, rel=1e-7)
        for name, tensor in expected.items():
            torch.testing.assert_close(gradient[name], tensor, rtol=1e-6, atol=1e-8)


def test_a_model_without_distributions_is_refused():
    model = nn.Module()
    model.encoder = Encoder(0.0)
    for name in ("rdrop", "vat"):
        with pytest.raises(SettingsError, match=f"{name}: it compares distributions") as error:
            step_of(name, model=model)
        assert error.value.hint == "tasks whose models do: classification, gplinker, ner"


def test_a_layer_without_a_second_gradient_is_refused():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("derivative for once_backward is not implemented")

    with (
        pytest.raises(SettingsError, match="a layer has no second gradient"),
        twice_differentiable(),
    ):
        Once.apply(torch.ones(1, requires_grad=True)).backward()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    scale=st.sampled_from([0.1, 0.5, 1.0, 2.0]),
)
def test_a_parameter_penalty_bounds_an_input_penalty(seed, sizes, scale):
    """https://kexue.fm/archives/8796, for any network of linear layers and tanh:

    ||grad_x f||^2 sum_t (1 + ||h_t||^2) / (||W_t||^2 ||grad_x h_t||^2) <= ||grad_theta f||^2
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    weights = [draw(b, a).requires_grad_() for a, b in zip([4, *sizes], sizes, strict=False)]
    biases = [draw(b).requires_grad_() for b in sizes]
    inputs = draw(4).requires_grad_()

    def hidden_before(layer, h):
        for weight, bias in zip(weights[:layer], biases[:layer], strict=True):
            h = (weight @ h + bias).tanh()
        return h

    f = hidden_before(len(sizes), inputs).square().sum()
    by_input, *by_parameters = torch.autograd.grad(f, [inputs, *weights, *biases])
    total = 0.0
    for number, weight in enumerate(weights):
        h = hidden_before(number, inputs)
        slope = torch.autograd.functional.jacobian(lambda x, n=number: hidden_before(n, x), inputs)
        norms = torch.linalg.matrix_norm(weight, 2) * torch.linalg.matrix_norm(slope, 2)
        assume(float(norms.detach()) > 1e-6)  # nothing is saturated to the last bit
        total += float(((1 + h.square().sum()) / norms**2).detach())
    left = float(by_input.square().sum()) * total
    right = sum(float(gradient.square().sum()) for gradient in by_parameters)
    assert left <= right * (1 + 1e-9)
