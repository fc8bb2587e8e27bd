"""AdaBN: the target's statistics by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tests.conftest import domain
from tests.methods.reference import made
from tests.models.nets import SmallResNet
from uda import UserError
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.adabn import AdaBN
from uda.models.custom import split_network
from uda.models.layers import SOURCE, TARGET, domain_norms
from uda.runtime import Runtime


def make(fp32: Runtime, count: int = 24) -> AdaBN:
    torch.manual_seed(0)
    start = split_network(SmallResNet(3), 3, 16, 10)
    return made(AdaBN, fp32, classifier=start, target=domain("t", count, 1).without_labels())


def test_the_first_norm_has_the_targets_mean_and_variance(fp32: Runtime) -> None:
    method, read = make(fp32), []
    norm = domain_norms(method.network)[0]
    norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    method.classifier()(to_float(domain("t", 24, 1).images))
    channels: Tensor = read[0].detach().transpose(0, 1).flatten(1)
    assert torch.allclose(norm.norms[TARGET].running_mean, channels.mean(1), atol=1e-5)
    assert torch.allclose(norm.norms[TARGET].running_var, channels.var(1), rtol=1e-4)
    assert torch.equal(norm.norms[SOURCE].running_mean, torch.zeros(8)), "the source's are as they were"


def test_weights_are_the_source_classifiers(fp32: Runtime) -> None:
    torch.manual_seed(0)
    own = dict(split_network(SmallResNet(3), 3, 16, 10).named_parameters())
    now = make(fp32).classifier().named_parameters()
    assert all(torch.equal(value, own[key.replace(".norms.0", "")]) for key, value in now)


def test_a_step_changes_nothing(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    before = copy.deepcopy(method.state_dict())
    assert {name: float(value) for name, value in method.step(batch).items()} == {"total": 0}
    assert method.done == 1
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_a_network_without_batch_norm_is_refused(fp32: Runtime) -> None:
    with pytest.raises(UserError, match="this network has no batch norm"):
        made(AdaBN, fp32)
