"""load_into where it is easy to do half of it, or the wrong thing, without a word."""

import copy

import ckptd
import pytest
import torch
from same_state import assert_same
from test_load_into import Net, adam, assert_strict_refuses, groups, moments, train
from torch import nn
from torch.optim import lr_scheduler

BODY, HEAD = ["first.weight", "first.bias", "second.weight", "second.bias"], ["head.weight", "head.bias"]


def saved(client, run, **parts):
    return client.save(run, ckptd.torch.capture(epoch=1, **parts)).reference


def test_a_scheduler_of_tensors_gets_their_values(client):
    def make():
        model = Net()
        optimizer = adam(model, lr=torch.tensor(0.1))
        return model, optimizer, lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)

    model, optimizer, scheduler = make()
    train(model, optimizer, scheduler)
    reference = saved(client, "tensor-lr", model=model, optimizer=optimizer, scheduler=scheduler)
    live, fresh, its = make()
    assert client.load_into(reference, model=live, optimizer=fresh, scheduler=its).exact
    assert_same(its.state_dict(), scheduler.state_dict())
    for part in ((model, optimizer, scheduler), (live, fresh, its)):
        train(*part)
    assert_same(fresh.state_dict(), optimizer.state_dict())
    split = torch.optim.AdamW(groups(live, (BODY, {"lr": torch.tensor(1.0)}), (HEAD, {"lr": torch.tensor(2.0)})))
    its = lr_scheduler.LambdaLR(split, lambda epoch: 1.0)
    client.load_into(reference, model=live, optimizer=split, scheduler=its, match="by_name")
    lrs = [group["lr"] for group in split.param_groups]
    assert lrs[0] is not lrs[1] and torch.equal(lrs[0], lrs[1]) and torch.equal(lrs[0], torch.tensor(0.1) * 0.5**3)


class Shadow(torch.optim.SGD):
    """Keeps more than states of parameters, and says so in its own state_dict."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shadow = 0

    def step(self, closure=None):
        self.shadow += 1
        self.state["global"] = {"n": self.shadow}
        return super().step(closure)

    def state_dict(self):
        return {**super().state_dict(), "shadow": self.shadow}

    def load_state_dict(self, state):
        self.shadow = state["shadow"]
        super().load_state_dict({key: value for key, value in state.items() if key != "shadow"})


def test_an_optimizer_with_its_own_load_state_dict_is_loaded_by_it(client):
    model = Net()
    optimizer = Shadow(model.parameters(), lr=0.01, momentum=0.9)
    train(model, optimizer)
    reference = saved(client, "shadow", model=model, optimizer=optimizer)
    live = Net(("second", "first", "head"))
    fresh = Shadow(live.parameters(), lr=0.5, momentum=0.9)
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert fresh.shadow == 3 and fresh.state["global"] == {"n": 3} and fresh.param_groups[0]["lr"] == 0.01
    assert_same(dict(sorted(moments(live, fresh).items())), dict(sorted(moments(model, optimizer).items())))
    train(live, fresh)


def test_schedulers_made_of_others_are_the_same_or_refused(client):
    def make(*parts):
        model = Net()
        optimizer = adam(model)
        inner = [part(optimizer) for part in parts]
        return model, optimizer, lr_scheduler.SequentialLR(optimizer, inner, milestones=list(range(1, len(inner))))

    def exponential(optimizer):
        return lr_scheduler.ExponentialLR(optimizer, 0.5)

    def cosine(optimizer):
        return lr_scheduler.CosineAnnealingLR(optimizer, 10)

    model, optimizer, scheduler = make(exponential, exponential, cosine)
    train(model, optimizer, scheduler)
    reference = saved(client, "sequential", model=model, optimizer=optimizer, scheduler=scheduler)
    live, fresh, its = make(exponential, exponential, cosine)
    client.load_into(reference, model=live, optimizer=fresh, scheduler=its)
    assert_same(its.state_dict(), scheduler.state_dict())
    for parts in ((exponential, exponential), (exponential, cosine, cosine)):
        live, fresh, its = make(*parts)
        report = assert_strict_refuses(client, reference, model=live, optimizer=fresh, scheduler=its)
        assert "SequentialLR(" in report.refused[0]
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "epoch": 1}
    reference = client.save("sequential-plain", state).reference
    live, fresh, its = make(exponential, exponential)
    assert "another length" in assert_strict_refuses(client, reference, model=live, optimizer=fresh, scheduler=its).refused[0]


@pytest.mark.parametrize(
    ("part", "wrong"), [("rng", torch.get_rng_state()), ("scaler", {"x": 1}), ("scheduler", [{}]), ("model", {"first.weight": [1]})]
)
def test_parts_that_are_something_else_are_refused_before_anything_is_touched(client, part, wrong):
    model = Net()
    optimizer = adam(model)
    train(model, optimizer)
    state = ckptd.torch.capture(model=model, optimizer=optimizer, epoch=1)
    state[part] = {**state[part], **wrong} if part == "model" else wrong
    reference = client.save(f"wrong-{part}", state).reference
    live = Net()
    fresh = adam(live)
    asked = {
        "rng": {"rng": True},
        "scaler": {"scaler": torch.amp.GradScaler("cpu")},
        "scheduler": {"scheduler": lr_scheduler.StepLR(fresh, 1)},
        "model": {},
    }[part]
    before = copy.deepcopy((live.state_dict(), fresh.state_dict()))
    with pytest.raises(ckptd.InvalidState, match="nothing was loaded"):
        client.load_into(reference, model=live, optimizer=fresh, **asked)
    assert_same((live.state_dict(), fresh.state_dict()), before)


def test_what_fails_half_way_is_put_back(client):
    class Broken(lr_scheduler.StepLR):
        def load_state_dict(self, state):
            self.last_epoch = 77
            raise RuntimeError("broken")

    model = Net()
    optimizer = adam(model)
    scheduler = Broken(optimizer, 1)
    train(model, optimizer)
    reference = saved(client, "broken", model=model, optimizer=optimizer, scheduler=scheduler)
    live = Net()
    fresh = adam(live, lr=0.3)
    its = Broken(fresh, 1)
    before = copy.deepcopy((live.state_dict(), fresh.state_dict(), its.state_dict()))
    with pytest.raises(RuntimeError, match="broken"):
        client.load_into(reference, model=live, optimizer=fresh, scheduler=its)
    assert_same((live.state_dict(), fresh.state_dict(), its.state_dict()), before)


def test_what_matches_nothing_is_refused_in_every_way(client):
    model = Net()
    optimizer = adam(model)
    train(model, optimizer)
    reference = saved(client, "nothing", model=model, optimizer=optimizer)
    live = nn.Sequential(Net())
    fresh = adam(live)
    train(live, fresh)
    before = copy.deepcopy((live.state_dict(), fresh.state_dict()))
    with pytest.raises(ckptd.OptimizerMismatch, match="none of the optimizer's 6 saved slots is here"):
        client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    with pytest.raises(ckptd.OptimizerMismatch, match="say model="):
        client.load_into(reference, optimizer=fresh, match="by_name")
    with pytest.raises(ckptd.InvalidState, match="the model differs"):
        client.load_into(reference, model=live, match="by_name")
    other = client.save("nothing", {"model_state_dict": model.state_dict(), "epoch": 2}).reference
    with pytest.raises(ckptd.InvalidState, match="lacks model"):
        client.load_into(other, model=live, match="by_name")
    assert_same((live.state_dict(), fresh.state_dict()), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_moments_of_the_parameters_dtype_go_with_it(client, dtype):
    model = Net().to(dtype)
    optimizer = adam(model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    reference = saved(client, f"cast-{dtype}", model=model, optimizer=optimizer)
    live = Net()
    fresh = adam(live)
    client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert {state["exp_avg"].dtype for state in fresh.state.values()} == {torch.float32}
    assert torch.equal(moments(live, fresh)["head.bias"]["exp_avg"], moments(model, optimizer)["head.bias"]["exp_avg"].float())
    train(live, fresh)


def test_moments_have_the_layout_of_their_parameter(client):
    def make(memory_format):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 8, 3).to(memory_format=memory_format)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(model, optimizer):
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(2, 3, 8, 8)).square().sum().backward()
            optimizer.step()

    model, optimizer = make(torch.contiguous_format)
    step(model, optimizer)
    reference = saved(client, "layout", model=model, optimizer=optimizer)
    live, fresh = make(torch.channels_last)
    assert client.load_into(reference, model=live, optimizer=fresh).exact
    step(model, optimizer)
    step(live, fresh)
    assert torch.allclose(live.weight, model.weight, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "option"),
    [("AdamW", {"amsgrad": True}), ("RMSprop", {"centered": True}), ("RMSprop", {"momentum": 0.9}), ("SGD", {"momentum": 0.9})],
)
def test_states_that_a_groups_own_options_do_not_fit_begin_fresh(client, kind, option):
    model = Net()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01)
    train(model, optimizer)
    reference = saved(client, f"options-{kind}-{next(iter(option))}", model=model, optimizer=optimizer)
    live = Net(classes=5)
    fresh = getattr(torch.optim, kind)(live.parameters(), lr=0.01, **option)
    report = client.load_into(reference, model=live, optimizer=fresh, match="by_name")
    assert "begin fresh" in report.notes[0] and not fresh.state
    train(live, fresh)
    # A group that is whole takes the saved options, and so its states.
    whole = Net()
    fresh = getattr(torch.optim, kind)(whole.parameters(), lr=0.01, **option)
    client.load_into(reference, model=whole, optimizer=fresh)
    assert_same(fresh.state_dict(), optimizer.state_dict())
    train(whole, fresh)


def test_an_empty_group_is_one(client):
    def make():
        model = Net()
        return model, torch.optim.AdamW([{"params": list(model.parameters())}, {"params": [], "lr": 0.5}])

    model, optimizer = make()
    train(model, optimizer)
    reference = saved(client, "empty-group", model=model, optimizer=optimizer)
    live, fresh = make()
    assert client.load_into(reference, model=live, optimizer=fresh).exact
    assert_same(fresh.state_dict(), optimizer.state_dict())


def test_parameters_that_nobody_named_are_a_guess(client):
    def make():
        model, scale = Net(), nn.Parameter(torch.ones(3))
        return model, torch.optim.AdamW([*model.parameters(), scale])

    model, optimizer = make()
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    reference = saved(client, "no-name", model=model, optimizer=optimizer)
    live, fresh = make()
    report = client.load_into(reference, model=live, optimizer=fresh)
    assert "1 parameters that nobody named were matched by position: a guess" in report.notes
    assert_same(fresh.state_dict(), optimizer.state_dict())


def test_the_keys_of_dcps_optimizer_states_are_names(client):
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model = Net()
    optimizer = adam(model)
    train(model, optimizer)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    reference = client.save("dcp-names", {"model": model_state, "optimizer": optimizer_state, "epoch": 1}).reference
    for order in (("first", "second", "head"), ("second", "first", "head")):
        live = Net(order)
        fresh = adam(live)
        report = client.load_into(reference, model=live, optimizer=fresh, match="by_name")
        assert not report.guessed and bool(report.optimizer.reordered) == (order[0] == "second")
        assert_same(dict(sorted(moments(live, fresh).items())), dict(sorted(moments(model, optimizer).items())))


def test_a_custom_schedulers_lists_are_not_guessed_at(client):
    class Custom(lr_scheduler.LRScheduler):
        def __init__(self, optimizer):
            self.base_values = [group["lr"] for group in optimizer.param_groups]
            super().__init__(optimizer)

        def get_lr(self):
            return self.base_values

    model = Net()
    optimizer = torch.optim.AdamW(groups(model, (BODY, {"lr": 0.1}), (HEAD, {"lr": 0.9})))
    reference = saved(client, "custom", model=model, optimizer=optimizer, scheduler=Custom(optimizer))
    live = Net()
    fresh = torch.optim.AdamW(groups(live, (HEAD, {"lr": 0.5}), (BODY, {"lr": 0.5})))
    with pytest.raises(ckptd.OptimizerMismatch, match="base_values may have an element for each group"):
        client.load_into(reference, model=live, optimizer=fresh, scheduler=Custom(fresh), match="by_name")
    with pytest.raises(ckptd.OptimizerMismatch, match=r"base_lrs is of another length"):
        alone = adam(live)
        client.load_into(reference, model=live, scheduler=Custom(alone))


def test_lazy_modules_and_meta_tensors_are_refused(client):
    lazy = nn.LazyLinear(3)
    with pytest.raises(ckptd.InvalidState, match="weight has no shape yet"):
        ckptd.torch.capture(optimizer=torch.optim.SGD(list(lazy.named_parameters())), rng=False)
    client.save("into", {"epoch": 1, "w": torch.ones(3)})
    for live, why in ((torch.ones(3, device="meta"), "meta device"), (torch.ones(1).expand(3), "expanded")):
        with pytest.raises(ckptd.InvalidState, match=why):
            client.restore_into("into@1", {"w": live})
