"""Optimizers are loaded by the names of their parameters, where PyTorch goes by position."""

import copy
import random

import ckptd
import numpy as np
import pytest
import torch
from same_state import assert_same
from torch import nn

STEPS = 3


class Net(nn.Module):
    """Two layers of one shape, and a head, defined in the order of ``order``."""

    def __init__(self, order=("first", "second", "head"), classes=3, **more):
        super().__init__()
        layers = {"first": nn.Linear(4, 4), "second": nn.Linear(4, 4), "head": nn.Linear(4, classes)}
        for name in order:
            self.add_module(name, more.get(name) or layers[name])

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def train(model, optimizer, scheduler=None, steps=STEPS, seed=0):
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def adam(model, **options):
    return torch.optim.AdamW(model.parameters(), **{"lr": 0.01, **options})


def groups(model, *names_of_groups):
    named = dict(model.named_parameters())
    return [{"params": [named[name] for name in names], **options} for names, options in names_of_groups]


def moments(model, optimizer):
    """Each parameter's state, by its name."""
    return {name: optimizer.state.get(parameter) for name, parameter in model.named_parameters()}


@pytest.fixture
def trained(client, request):
    """A trained model and optimizer, saved as RUN@1; RUN is the test's name."""
    model = Net()
    optimizer = adam(model)
    train(model, optimizer)
    run = request.node.name.split("[")[0]
    client.save(run, ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1, best_accuracy=0.91))
    return f"{run}@1", model, optimizer


def assert_strict_refuses(client, reference, **live):
    """Strict raises with a report, and changes nothing."""
    before = copy.deepcopy({name: part.state_dict() for name, part in live.items()})
    with pytest.raises(ckptd.OptimizerMismatch, match="nothing was loaded") as raised:
        client.load_into(reference, **live)
    assert_same({name: part.state_dict() for name, part in live.items()}, before)
    return raised.value.report


def test_what_was_captured_comes_back(client):
    model, other = Net(), Net()
    optimizer = adam(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(model, optimizer, scheduler)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    state = ckptd.torch.capture(model=model, optimizer=optimizer, scheduler=scheduler, epoch=3, best_accuracy=0.91)
    client.save("captured", state)
    drawn = random.random(), np.random.rand(), torch.rand(1)
    fresh = adam(other)
    fresh_scheduler = torch.optim.lr_scheduler.StepLR(fresh, 1, 0.5)
    report = client.load_into("captured:latest", model=other, optimizer=fresh, scheduler=fresh_scheduler, rng=True)
    assert report.exact and report.values == {"epoch": 3, "best_accuracy": 0.91} and report.reference == "captured@3#1"
    assert_same(other.state_dict(), model.state_dict())
    assert_same(fresh.state_dict(), optimizer.state_dict())
    assert_same(fresh_scheduler.state_dict(), scheduler.state_dict())
    assert (random.random(), np.random.rand(), torch.rand(1)) == drawn
    # Each part by itself is what PyTorch knows.
    loaded = client.restore("captured@3")
    assert_same(loaded, state)
    Net().load_state_dict(loaded["model"])
    adam(Net()).load_state_dict(loaded["optimizer"])
    for pair in ((model, optimizer, scheduler), (other, fresh, fresh_scheduler)):
        train(*pair)
    assert_same(other.state_dict(), model.state_dict())


def test_two_layers_swapped(client, trained):
    reference, model, optimizer = trained
    live = Net(("second", "first", "head"))
    plain = adam(live)
    plain.load_state_dict(optimizer.state_dict())  # no error, and the moments of another layer
    assert torch.equal(moments(live, plain)["first.weight"]["exp_avg"], moments(model, optimizer)["second.weight"]["exp_avg"])

    fresh = adam(live)
    report = assert_strict_refuses(client, reference, model=live, optimizer=fresh)
    assert report.optimizer.reordered == ["second.weight", "second.bias", "first.weight", "first.bias"]
    report = client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert report.optimizer.matched == [name for name, _ in live.named_parameters()]
    assert_same(moments(live, fresh), moments(live, fresh) | moments(model, optimizer))
    # They go on as if nothing had happened.
    train(model, optimizer)
    train(live, fresh)
    assert_same(dict(live.state_dict()), {name: model.state_dict()[name] for name in live.state_dict()})


def test_a_layer_added_in_the_middle(client, trained):
    reference, model, optimizer = trained
    live = Net(("first", "middle", "second", "head"), middle=nn.Linear(4, 4))
    fresh = adam(live)
    with pytest.raises(ValueError, match="doesn't match the size"):
        fresh.load_state_dict(optimizer.state_dict())
    report = assert_strict_refuses(client, reference, model=live, optimizer=fresh)
    assert report.optimizer.missing == report.model.missing == ["middle.weight", "middle.bias"]
    assert report.optimizer.reordered == []
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    expected = moments(model, optimizer) | {"middle.weight": None, "middle.bias": None}
    assert_same(moments(live, fresh), {name: expected[name] for name, _ in live.named_parameters()})
    train(live, fresh)


@pytest.mark.parametrize("frozen_in", ["saved", "live"])
def test_a_layer_frozen_or_unfrozen(client, frozen_in):
    """A trainer gives the optimizer what requires a gradient."""

    def make(frozen):
        model = Net()
        model.first.requires_grad_(not frozen)
        return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)

    model, optimizer = make(frozen_in == "saved")
    train(model, optimizer)
    reference = client.save(f"frozen-{frozen_in}", ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)).reference
    live, fresh = make(frozen_in == "live")
    with pytest.raises(ValueError, match="doesn't match the size"):
        fresh.load_state_dict(optimizer.state_dict())
    report = assert_strict_refuses(client, reference, model=live, optimizer=fresh)
    names = ["first.weight", "first.bias"]
    assert (report.optimizer.missing, report.optimizer.unexpected) == ((names, []) if frozen_in == "saved" else ([], names))
    assert report.model.exact
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    expected = moments(model, optimizer)
    assert_same(moments(live, fresh), {name: None if name in names else expected[name] for name in expected})
    assert_same(live.state_dict(), model.state_dict())
    train(live, fresh)


def test_groups_split_into_decay_and_no_decay(client):
    model = Net()
    optimizer = adam(model, lr=0.02, weight_decay=0.3)
    train(model, optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    scheduler.step()
    reference = client.save("split", ckptd.torch.capture(model=model, optimizer=optimizer, scheduler=scheduler, epoch=1)).reference
    live = Net()
    weights = [name for name, _ in live.named_parameters() if name.endswith("weight")]
    biases = [name for name, _ in live.named_parameters() if name.endswith("bias")]

    def make():
        split = torch.optim.AdamW(groups(live, (weights, {"weight_decay": 0.1}), (biases, {"weight_decay": 0.0})), lr=1.0)
        return split, torch.optim.lr_scheduler.StepLR(split, 1, 0.5)

    plain, _ = make()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        plain.load_state_dict(optimizer.state_dict())
    fresh, fresh_scheduler = make()
    report = assert_strict_refuses(client, reference, model=live, optimizer=fresh, scheduler=fresh_scheduler)
    assert report.groups[0] == "1 groups saved, 2 here"
    report = client.load_into(reference, model=live, optimizer=fresh, scheduler=fresh_scheduler, match="by_name")
    assert_same(moments(live, fresh), moments(model, optimizer))
    assert [(g["lr"], g["initial_lr"], g["weight_decay"]) for g in fresh.param_groups] == [(0.01, 0.02, 0.1), (0.01, 0.02, 0.0)]
    assert fresh_scheduler.base_lrs == [0.02, 0.02] and fresh_scheduler.get_last_lr() == [0.01, 0.01]
    assert "rearranged" in report.notes[0]
    train(live, fresh, fresh_scheduler)


def test_groups_of_the_same_number_and_size_with_other_members(client):
    """The worst: PyTorch sees two groups of three, and loads them."""
    model = Net()
    one, two = ["first.weight", "first.bias", "head.weight"], ["second.weight", "second.bias", "head.bias"]
    optimizer = torch.optim.AdamW(groups(model, (one, {"lr": 0.1}), (two, {"lr": 0.2})))
    train(model, optimizer)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    state = ckptd.torch.capture(model=model, optimizer=optimizer, scheduler=scheduler, epoch=1)
    reference = client.save("regrouped", state).reference
    live = Net()
    three, four = ["first.weight", "second.bias", "head.weight"], ["second.weight", "first.bias", "head.bias"]
    plain = torch.optim.AdamW(groups(live, (three, {}), (four, {})))
    plain.load_state_dict(optimizer.state_dict())
    assert_same(moments(live, plain)["second.bias"], moments(model, optimizer)["first.bias"])

    fresh = torch.optim.AdamW(groups(live, (three, {"lr": 0.5}), (four, {"lr": 0.6})))
    fresh_scheduler = torch.optim.lr_scheduler.LambdaLR(fresh, lambda epoch: 1.0)
    assert_strict_refuses(client, reference, model=live, optimizer=fresh, scheduler=fresh_scheduler)
    with pytest.raises(ckptd.OptimizerMismatch, match=r"scheduler.base_lrs: group 0 .* 0.1, 0.2"):
        client.load_into(reference, model=live, optimizer=fresh, scheduler=fresh_scheduler, match="by_name")
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert_same(moments(live, fresh), moments(model, optimizer))
    assert [group["lr"] for group in fresh.param_groups] == [0.5, 0.6]  # the saved ones do not agree


def test_a_group_that_only_moved_keeps_all_its_hyperparameters(client):
    model = Net()
    one, two = ["first.weight", "first.bias"], ["second.weight", "second.bias", "head.weight", "head.bias"]
    optimizer = torch.optim.AdamW(groups(model, (one, {"lr": 0.1, "betas": (0.5, 0.6)}), (two, {"lr": 0.2})))
    train(model, optimizer)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    state = ckptd.torch.capture(model=model, optimizer=optimizer, scheduler=scheduler, epoch=1)
    reference = client.save("moved", state).reference
    live = Net()
    fresh = torch.optim.AdamW(groups(live, (two, {"lr": 7.0}), (one, {"lr": 8.0})))
    fresh_scheduler = torch.optim.lr_scheduler.ExponentialLR(fresh, 0.5)
    report = client.explain(reference, model=live, optimizer=fresh, scheduler=fresh_scheduler)
    assert report.groups == ["the groups are in another order"] and not report.exact
    client.load_into(reference, model=live, optimizer=fresh, scheduler=fresh_scheduler, match="by_name")
    assert [(g["lr"], g["betas"]) for g in fresh.param_groups] == [(0.2, (0.9, 0.999)), (0.1, (0.5, 0.6))]
    assert fresh_scheduler.base_lrs == [0.2, 0.1]
    assert_same(moments(live, fresh), moments(model, optimizer))


def test_a_head_of_another_size(client, trained):
    reference, model, optimizer = trained
    live = Net(classes=5)
    plain = adam(live)
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # no error here, but at the next step
    with pytest.raises(RuntimeError, match="must match the size"):
        train(live, plain)
    live = Net(classes=5)
    fresh = adam(live)
    report = assert_strict_refuses(client, reference, model=live, optimizer=fresh)
    assert [str(change) for change in report.optimizer.reshaped] == [
        "head.weight: [3, 4] saved, [5, 4] here",
        "head.bias: [3] saved, [5] here",
    ]
    head = copy.deepcopy(live.head.state_dict())
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert_same(live.head.state_dict(), head)
    expected = moments(model, optimizer) | {"head.weight": None, "head.bias": None}
    assert_same(moments(live, fresh), expected)
    assert torch.equal(live.first.weight, model.first.weight)
    train(live, fresh)


def test_another_optimizer_is_refused(client, trained):
    reference, _, optimizer = trained
    live = Net()
    plain = torch.optim.SGD(live.parameters(), lr=0.5, momentum=0.9)
    plain.load_state_dict(optimizer.state_dict())  # no error
    with pytest.raises(KeyError):
        train(live, plain)
    fresh = torch.optim.SGD(live.parameters(), lr=0.5, momentum=0.9)
    for match in ("strict", "by_name"):
        with pytest.raises(ckptd.OptimizerMismatch, match="AdamW when it was saved, and is torch.optim.sgd.SGD here"):
            client.load_into(reference, model=live, optimizer=fresh, match=match)
    report = client.load_into(reference, model=live, optimizer=fresh, match="model_only")
    assert report.optimizer is None and not fresh.state
    assert torch.equal(live.first.weight, trained[1].first.weight)
    train(live, fresh)


class TestWithoutNames:
    """Checkpoints that ``capture`` did not make."""

    def save(self, client, run, make_optimizer=adam):
        model = Net()
        optimizer = make_optimizer(model)
        train(model, optimizer)
        saved = client.save(run, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1})
        return saved.reference, model, optimizer

    def test_where_all_shapes_agree_it_is_a_guess(self, client):
        reference, model, optimizer = self.save(client, "unnamed")
        live = Net()
        fresh = adam(live)
        report = client.load_into(reference, model=live, optimizer=fresh)
        assert report.guessed and "a guess" in str(report)
        assert_same(moments(live, fresh), moments(model, optimizer))

    def test_where_they_do_not_it_is_refused(self, client):
        reference, *_ = self.save(client, "unnamed-other")
        live = Net(("head", "first", "second"))
        for match in ("strict", "by_name"):
            with pytest.raises(ckptd.OptimizerMismatch, match=r"at position 0 a state of shape \[4, 4\] where head.weight"):
                client.load_into(reference, model=live, optimizer=adam(live), match=match)

    def test_where_the_model_stands_in_another_order_it_is_refused(self, client):
        reference, *_ = self.save(client, "unnamed-swapped")
        live = Net(("second", "first", "head"))  # of one shape: plain load_state_dict swaps their moments
        fresh = adam(live)
        for match in ("strict", "by_name"):
            with pytest.raises(ckptd.OptimizerMismatch, match="another order"):
                client.load_into(reference, model=live, optimizer=fresh, match=match)
        assert not fresh.state

    def test_where_the_optimizer_has_others_or_another_order_it_is_refused(self, client):
        reference, *_ = self.save(client, "unnamed-order")
        live = Net()
        of_first, of_second, of_head = (list(getattr(live, name).parameters()) for name in ("first", "second", "head"))
        for parameters, why in (
            ([*of_second, *of_first, *of_head], "the optimizer has them in another order than the model"),
            ([*of_first[::-1], *of_second, *of_head], r"at position 0 a state of shape \[4, 4\] where first.bias here has \[4\]"),
            ([*of_first, *of_second], "its groups have other sizes"),
            ([*of_first, *of_second, *Net().head.parameters()], "does not have just the model's parameters"),
        ):
            with pytest.raises(ckptd.OptimizerMismatch, match=why):
                client.load_into(reference, model=live, optimizer=torch.optim.AdamW(parameters))

    @pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adafactor])
    def test_where_there_are_none_it_is_refused(self, client, kind):
        def make_optimizer(model):
            return kind(model.parameters(), lr=0.01)

        reference, *_ = self.save(client, f"unnamed-{kind.__name__}", make_optimizer)
        live = Net()
        with pytest.raises(ckptd.OptimizerMismatch, match="the checkpoint has no names"):
            client.load_into(reference, model=live, optimizer=make_optimizer(live))

    def test_another_optimizer_is_seen_by_its_hyperparameters(self, client):
        reference, *_ = self.save(client, "unnamed-class")
        live = Net()
        with pytest.raises(ckptd.OptimizerMismatch, match="looks like none of torch.optim.sgd.SGD: it has no dampening, momentum"):
            client.load_into(reference, model=live, optimizer=torch.optim.SGD(live.parameters()), match="by_name")

    def test_the_optimizers_own_names_do(self, client):
        reference, model, optimizer = self.save(client, "own-names", lambda net: torch.optim.AdamW(net.named_parameters()))
        live = Net(("second", "first", "head"))
        fresh = torch.optim.AdamW(live.named_parameters())
        report = client.load_into(reference, model=live, optimizer=fresh, match="by_name")
        assert not report.guessed and len(report.optimizer.reordered) == 4
        assert_same(dict(sorted(moments(live, fresh).items())), dict(sorted(moments(model, optimizer).items())))
        assert fresh.param_groups[0]["param_names"] == [name for name, _ in live.named_parameters()]


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["parallel", "compile"])
def test_wrappers_do_not_count(client, wrap, request):
    model = wrap(Net())
    optimizer = adam(model)
    train(model, optimizer)
    state = ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)
    assert list(state["model"]) == list(Net().state_dict())
    assert state["optimizer_slots"]["names"][0] == ["first.weight"]
    reference = client.save(f"wrapped-{request.node.callspec.id}", state).reference
    for live in (Net(), wrap(Net())):
        fresh = adam(live)
        assert client.load_into(reference, model=live, optimizer=fresh).exact
        assert_same(list(live.state_dict().values()), list(model.state_dict().values()))
        assert_same(list(moments(live, fresh).values()), list(moments(model, optimizer).values()))


def test_tied_parameters_have_all_their_names(client):
    class Tied(nn.Module):
        def __init__(self, output_first):
            super().__init__()
            parts = {"embed": nn.Linear(4, 4, bias=False), "out": nn.Linear(4, 4, bias=False)}
            for name in reversed(parts) if output_first else parts:
                self.add_module(name, parts[name])
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(torch.relu(self.embed(x)))

    model = Tied(False)
    optimizer = adam(model)
    train(model, optimizer)
    state = ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)
    assert state["optimizer_slots"]["names"] == [["embed.weight", "out.weight"]]
    reference = client.save("tied", state).reference
    live = Tied(True)
    fresh = adam(live)
    assert client.load_into(reference, model=live, optimizer=fresh).exact
    assert_same(fresh.state_dict(), optimizer.state_dict())
    assert live.out.weight is live.embed.weight
    untied = Tied(False)
    untied.out.weight = nn.Parameter(untied.embed.weight.detach().clone())
    report = client.load_into(reference, model=untied, optimizer=(its := adam(untied)), match="by_name")
    assert report.optimizer.matched == ["embed.weight"] and report.optimizer.missing == ["out.weight"]
    assert untied.out.weight not in its.state


def test_names_in_common_are_refused(client):
    model = nn.Module()
    model.a = nn.Linear(2, 2)
    model.module = nn.Module()
    model.module.a = nn.Linear(2, 2)
    with pytest.raises(ckptd.InvalidState, match=r"two .* have the name a.weight"):
        ckptd.torch.capture(model=model, optimizer=torch.optim.SGD(model.parameters()))


def test_states_keep_their_dtype(client):
    """PyTorch casts fp32 moments to the dtype of a bf16 parameter."""
    model = Net().bfloat16()
    optimizer = adam(model)
    for parameter in model.parameters():
        optimizer.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": torch.randn(parameter.shape), "exp_avg_sq": torch.rand(parameter.shape)}
    plain = adam(Net().bfloat16())
    plain.load_state_dict(optimizer.state_dict())
    assert plain.state_dict()["state"][0]["exp_avg"].dtype == torch.bfloat16
    reference = client.save("dtype", ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)).reference
    live = Net().bfloat16()
    fresh = adam(live)
    client.load_into(reference, model=live, optimizer=fresh)
    assert_same(fresh.state_dict(), optimizer.state_dict())
    # In another dtype the model's is a difference, which by_name takes.
    live = Net()
    fresh = adam(live)
    report = assert_strict_refuses(client, reference, model=live, optimizer=fresh)
    assert str(report.optimizer.dtype_changed[0]) == "first.weight: bfloat16 saved, float32 here"
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert_same(moments(live, fresh), moments(model, optimizer))
    assert torch.equal(live.first.weight, model.first.weight.float())


@pytest.mark.parametrize("kind", ["Adafactor", "LBFGS", "SGD", "Adagrad", "RMSprop", "NAdam", "RAdam", "Adamax", "ASGD", "Rprop", "Adadelta", "Muon"])
def test_every_optimizer_goes_on_where_it_was(client, kind):
    def make():
        net = Net() if kind != "Muon" else nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        return net, getattr(torch.optim, kind)(net.parameters(), lr=0.01)

    def run(model, optimizer):
        torch.manual_seed(5)
        for _ in range(3):
            x = torch.randn(8, 4)

            def closure(model=model, optimizer=optimizer, x=x):
                optimizer.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                return loss

            optimizer.step(closure)

    model, optimizer = make()
    run(model, optimizer)
    reference = client.save(f"kind-{kind}", ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)).reference
    live, fresh = make()
    assert client.load_into(reference, model=live, optimizer=fresh).exact
    assert_same(fresh.state_dict(), optimizer.state_dict())
    run(model, optimizer)
    run(live, fresh)
    assert_same(live.state_dict(), model.state_dict())


def test_lbfgs_that_differs_begins_fresh(client):
    model = Net()
    optimizer = torch.optim.LBFGS(model.parameters())
    optimizer.step(lambda: (optimizer.zero_grad(), model(torch.ones(1, 4)).sum().backward(), torch.tensor(1.0))[2])
    reference = client.save("lbfgs", ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)).reference
    live = Net(classes=5)
    fresh = torch.optim.LBFGS(live.parameters())
    report = client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert not fresh.state and "LBFGS" in report.notes[0]


def test_an_adafactors_shape_is_its_parameters(client):
    model = Net()
    optimizer = torch.optim.Adafactor(model.parameters())
    train(model, optimizer)
    reference = client.save("adafactor", ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)).reference
    live = Net(("second", "first", "head"), classes=5)
    fresh = torch.optim.Adafactor(live.parameters())
    report = client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert [change.name for change in report.optimizer.reshaped] == ["head.weight", "head.bias"]
    assert_same(moments(live, fresh)["first.weight"], moments(model, optimizer)["first.weight"])


def test_an_optimizer_without_state_matches_and_gets_none(client):
    model = Net()
    optimizer = adam(model)
    reference = client.save("stateless", ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)).reference
    live = Net()
    fresh = adam(live)
    assert client.explain(reference, model=live, optimizer=fresh).exact
    assert client.load_into(reference, model=live, optimizer=fresh).exact
    assert not fresh.state  # reading a defaultdict would have filled it
    assert not optimizer.state


def test_a_scaler_without_state_is_left_alone(client):
    model = Net()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    reference = client.save("scaler", ckptd.torch.capture(model=model, scaler=scaler, epoch=1)).reference
    report = client.load_into(reference, model=model, scaler=torch.amp.GradScaler("cpu"))
    assert "GradScaler" in report.notes[0]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    reference = client.save("scaler", ckptd.torch.capture(model=model, scaler=scaler, epoch=2)).reference
    other = torch.amp.GradScaler("cpu")
    client.load_into(reference, model=model, scaler=other)
    assert other.get_scale() == 8.0


def test_parts_that_are_not_there(client, trained):
    reference, model, optimizer = trained
    live = Net()
    scheduler = torch.optim.lr_scheduler.StepLR(adam(live), 1)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ckptd.InvalidState, match="lacks scheduler, scaler; nothing was loaded"):
        client.load_into(reference, model=live, scheduler=scheduler, scaler=scaler)
    report = client.load_into(reference, model=live, scheduler=scheduler, scaler=scaler, match="by_name")
    assert report.absent == ["scheduler", "scaler"]
    with pytest.raises(ckptd.InvalidState, match="match is 'strict'"):
        client.load_into(reference, model=live, match="almost")
    other = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    reference = client.save("scheduler", ckptd.torch.capture(model=model, optimizer=optimizer, scheduler=other, epoch=1)).reference
    with pytest.raises(ckptd.OptimizerMismatch, match=r"the scheduler was .*ExponentialLR when it was saved, and is .*StepLR here"):
        client.load_into(reference, model=live, optimizer=adam(live), scheduler=scheduler)


def test_a_model_that_differs_is_refused(client, trained):
    reference, model, _ = trained
    live = Net(classes=5)
    before = copy.deepcopy(live.state_dict())
    for match in ("strict", "model_only"):
        with pytest.raises(ckptd.InvalidState, match=r"head.weight: \[3, 4\] saved, \[5, 4\] here"):
            client.load_into(reference, model=live, match=match)
    assert_same(live.state_dict(), before)


def test_the_report_reads_well_and_explaining_changes_nothing(client, trained):
    reference, _, _ = trained
    live = Net(("second", "first", "head"), classes=5)
    fresh = adam(live, lr=0.5)
    before = copy.deepcopy((live.state_dict(), fresh.state_dict()))
    report = client.explain(reference, model=live, optimizer=fresh)
    assert str(report) == (
        'test_the_report_reads_well_and_explaining_changes_nothing@1#1, match="strict"\n'
        "model: 4 matched\n"
        "  other shape  head.weight: [3, 4] saved, [5, 4] here\n"
        "  other shape  head.bias: [3] saved, [5] here\n"
        "optimizer: 4 matched\n"
        "  other shape  head.weight: [3, 4] saved, [5, 4] here\n"
        "  other shape  head.bias: [3] saved, [5] here\n"
        "  other order  second.weight\n"
        "  other order  second.bias\n"
        "  other order  first.weight\n"
        "  other order  first.bias\n"
        "groups:\n"
        "  group 0 has not the same members as any saved one (some are of 0)\n"
        "hyper-parameters:\n"
        "  group 0 lr: 0.01 saved, 0.5 here"
    )
    assert_same((live.state_dict(), fresh.state_dict()), before)
