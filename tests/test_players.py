"""Players: who moves when, how fast, and what follows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from uda.players import Players, Schedule, linear_decay, mark_pretrained, one_cycle, update_ema
from uda.runtime import Runtime


def two_networks() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(3, 2), nn.Linear(3, 2)


def loss_of(*networks: nn.Module) -> Tensor:
    inputs = torch.arange(6.0).view(2, 3)
    return torch.stack([network(inputs).square().mean() for network in networks]).sum()


def state(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def players(fp32: Runtime) -> Players:
    return Players(fp32, 10)


def test_a_step_is_the_optimisers_down_the_loss(players: Players) -> None:
    network, _ = two_networks()
    weight, gradient = network.weight.detach().clone(), torch.autograd.grad(loss_of(network), network.weight)[0]
    players.add("one", network.parameters(), torch.optim.SGD, lr=0.1)
    players.step("one", loss_of(network))
    assert torch.allclose(network.weight, weight - 0.1 * gradient)


@pytest.mark.parametrize("schedule", [one_cycle, linear_decay(0.5)])
def test_weights_that_came_pretrained_move_slower_whatever_the_schedule(players: Players, schedule: Schedule) -> None:
    old, new = two_networks()
    mark_pretrained(old, 0.1)
    method = copy.deepcopy(nn.ModuleList([old, new]))
    players.slow_down(method)
    players.add("one", method.parameters(), torch.optim.SGD, schedule, lr=1.0)
    before = state(method)
    for _ in range(4):
        players.step("one", sum(parameter.sum() for parameter in method.parameters()))
        players.advance()
    slow_weight, slow_bias, weight, bias = (was - now for was, now in zip(before, state(method), strict=True))
    assert torch.allclose(slow_weight, 0.1 * weight)
    assert torch.allclose(slow_bias, 0.1 * bias)
    assert weight.min() > 0


def test_a_sharpness_aware_step_goes_by_the_gradient_where_the_loss_is_largest_nearby(players: Players) -> None:
    """Of w^4 / 4 the gradient is w^3, and from w = (3, 4) it grows most along (27, 64); the other loss is not moved."""
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    players.add("one", [weight], torch.optim.SGD, lr=0.01)

    def sharp() -> Tensor:
        return (weight**4).sum() / 4

    players.step_sharpness_aware("one", sharp(), sharp, (torch.tensor([5.0, -7.0]) * weight).sum(), rho=0.2)
    length = (27**2 + 64**2) ** 0.5
    expected = [3 - 0.01 * ((3 + 0.2 * 27 / length) ** 3 + 5), 4 - 0.01 * ((4 + 0.2 * 64 / length) ** 3 - 7)]
    assert weight.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_sharpness_aware_step_leaves_weights_that_its_loss_does_not_reach_to_the_rest(players: Players) -> None:
    reached, other = (torch.nn.Parameter(torch.tensor(2.0)) for _ in range(2))
    players.add("one", [reached, other], torch.optim.SGD, lr=0.1)
    players.step_sharpness_aware("one", reached**2, lambda: reached**2, 3 * other, rho=0.5)
    assert (reached.item(), other.item()) == pytest.approx((2 - 0.1 * 2 * 2.5, 2 - 0.1 * 3))


def test_a_sharpness_aware_step_at_a_minimum_stays_there(players: Players) -> None:
    weight = torch.nn.Parameter(torch.tensor(0.0))
    players.add("one", [weight], torch.optim.SGD, lr=0.1)
    players.step_sharpness_aware("one", weight**2, lambda: weight**2, 0 * weight, rho=0.5)
    assert weight.item() == 0


def test_only_the_named_player_moves(players: Players) -> None:
    first, second = two_networks()
    players.add("first", first.parameters(), torch.optim.Adam, lr=0.1)
    players.add("second", second.parameters(), torch.optim.Adam, lr=0.1)
    before = state(first), state(second)
    players.step("second", loss_of(first, second))
    assert same(before[0], state(first))
    assert not same(before[1], state(second))
    assert all(parameter.grad is None for parameter in first.parameters()), "nothing is left for a later step to add to"


def test_a_steps_gradients_are_not_added_to_the_next(players: Players) -> None:
    network, _ = two_networks()
    players.add("one", network.parameters(), torch.optim.SGD, lr=0.0)
    for _ in range(2):
        players.step("one", loss_of(network))
    assert network.weight.grad is not None
    assert torch.allclose(network.weight.grad, torch.autograd.grad(loss_of(network), network.weight)[0])


def test_some_of_a_players_parameters_can_move_alone(players: Players) -> None:
    network, _ = two_networks()
    players.add("one", network.parameters(), torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    weight, bias = network.weight.detach().clone(), network.bias.detach().clone()
    players.step("one", loss_of(network))
    moved = network.weight.detach().clone()
    players.step("one", loss_of(network), only=[network.bias])
    assert not torch.equal(moved, weight)
    assert torch.equal(network.weight, moved), "neither its moments nor weight decay move it"
    assert not torch.equal(network.bias, bias)


def test_parameters_that_take_no_gradient_are_no_players(players: Players) -> None:
    network, _ = two_networks()
    network.weight.requires_grad_(False)
    players.add("one", network.parameters(), torch.optim.SGD, lr=0.1)
    assert [id(parameter) for parameter in players.unclaimed(network)] == [id(network.weight)]


def test_unclaimed_are_the_parameters_that_no_player_has(players: Players) -> None:
    first, second = two_networks()
    players.add("first", first.parameters(), torch.optim.SGD, lr=0.1)
    both = nn.ModuleList([first, second])
    assert [id(parameter) for parameter in players.unclaimed(both)] == [id(parameter) for parameter in second.parameters()]


def rates(players: Players, schedule: Schedule | None, steps: int) -> list[float]:
    """The learning rate of each step, where it is 1 at most."""
    network, _ = two_networks()
    players.add("one", network.parameters(), torch.optim.AdamW, schedule, lr=1.0)
    found = []
    for _ in range(steps):
        found.append(players.state_dict()["optimizers"]["one"]["param_groups"][0]["lr"])
        players.step("one", loss_of(network))
        players.advance()
    return found


def test_without_a_schedule_the_learning_rate_stays(players: Players) -> None:
    assert rates(players, None, 4) == [1.0] * 4


def test_one_cycle_rises_from_a_25th_to_its_peak_and_falls_to_nothing(players: Players) -> None:
    found = rates(players, one_cycle, 10)
    assert found[0] == pytest.approx(1 / 25)
    assert max(found) == pytest.approx(1)
    peak = found.index(max(found))
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert found[-1] < 1e-3


def test_linear_decay_falls_over_the_last_share_of_the_steps(players: Players) -> None:
    assert rates(players, linear_decay(0.4), 10) == pytest.approx([1] * 7 + [0.75, 0.5, 0.25])


def test_linear_decay_within_fewer_steps_stays_at_nothing_after_them(players: Players) -> None:
    assert rates(players, linear_decay(0.5, within=4), 7) == pytest.approx([1, 1, 1, 0.5, 0, 0, 0])


def test_a_decay_of_no_share_is_a_constant_rate(players: Players) -> None:
    assert rates(players, linear_decay(0.0), 10) == [1.0] * 10


@pytest.mark.parametrize(("done", "remembered"), [(0, 1 / 10), (5, 6 / 15), (10_000, 0.9)])
def test_an_average_remembers_its_decay_and_less_in_the_first_steps(done: int, remembered: float) -> None:
    network, averaged = two_networks()
    expected = remembered * averaged.weight.detach() + (1 - remembered) * network.weight.detach()
    update_ema(averaged, network, 0.9, done)
    assert torch.allclose(averaged.weight, expected, atol=1e-6)


def test_statistics_are_copied_and_not_averaged() -> None:
    network, averaged = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network(torch.randn(5, 2))
    update_ema(averaged, network, 0.9, 100)
    assert torch.equal(averaged.running_mean, network.running_mean)  # type: ignore[arg-type]


def test_an_average_begins_as_its_network_and_follows_until_its_steps_are_over(players: Players) -> None:
    network, averaged = two_networks()
    players.add_ema(averaged, network, 0.5, steps=2)
    assert same(state(averaged), state(network))
    followed = []
    for _ in range(3):
        with torch.no_grad():
            network.weight.add_(1)
        before = state(averaged)
        players.advance()
        followed.append(not same(before, state(averaged)))
    assert followed == [True, True, False]
    assert players.done == 3


@pytest.mark.parametrize("schedule", [one_cycle, linear_decay(0.7), None], ids=["one cycle", "linear", "constant"])
def test_loaded_players_go_on_to_the_same_weights(schedule: Schedule | None, fp32: Runtime) -> None:
    def make() -> tuple[nn.Module, Players]:
        network, _ = two_networks()
        players = Players(fp32, 6)
        players.add("one", network.parameters(), torch.optim.AdamW, schedule, lr=0.1)
        return network, players

    def go_on(network: nn.Module, players: Players) -> None:
        for _ in range(3):
            players.step("one", loss_of(network))
            players.advance()

    first, its_players = make()
    go_on(first, its_players)
    second, loaded = make()
    second.load_state_dict(first.state_dict())
    loaded.load_state_dict(copy.deepcopy(its_players.state_dict()))
    assert loaded.done == 3

    go_on(first, its_players)
    go_on(second, loaded)
    assert same(state(first), state(second))
