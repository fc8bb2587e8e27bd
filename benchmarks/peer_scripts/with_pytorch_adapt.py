"""pytorch-adapt's side: its adapters, its DataLoader, one call for each step."""

import copy

import torch
from pytorch_adapt.adapters import DANN, MCD
from pytorch_adapt.containers import Models, Optimizers
from pytorch_adapt.datasets import CombinedSourceAndTargetDataset, SourceDataset, TargetDataset
from pytorch_adapt.layers import MultipleModels
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def adapt(task):
    source = SourceDataset(TensorDataset(torch.from_numpy(task.source), torch.from_numpy(task.labels)))
    unknown = torch.zeros(len(task.target), dtype=torch.long)
    target = TargetDataset(TensorDataset(torch.from_numpy(task.target), unknown))
    both = CombinedSourceAndTargetDataset(source, target)
    loader = DataLoader(both, batch_size=task.batch, shuffle=True, drop_last=True)
    features, head = task.network.features, task.network.head
    if task.method == "mcd":
        second = copy.deepcopy(head)
        second.reset_parameters()
        models, adapter = {"G": features, "C": MultipleModels(head, second)}, MCD
    else:
        layers = nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1), nn.Flatten(0)
        models, adapter = {"G": features, "C": head, "D": nn.Sequential(*layers)}, DANN
    adapter = adapter(Models(models), Optimizers((torch.optim.Adam, {"lr": 1e-3})))
    done = 0
    while done < task.steps:
        for batch in loader:
            adapter.training_step(batch)
            done += 1
            if done == task.steps:
                break

    def predict(images):
        with torch.no_grad():
            mapped = features(torch.from_numpy(images))
            logits = head(mapped) + second(mapped) if task.method == "mcd" else head(mapped)
        return logits.argmax(1).numpy()

    return predict


if __name__ == "__main__":
    from arm import main

    main(adapt)
