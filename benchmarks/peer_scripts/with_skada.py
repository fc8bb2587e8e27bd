"""skada's side: its DANN in skorch's manners, on arrays."""

import numpy as np
import torch
from skada.deep import DANN
from torch import nn


class Weighted(nn.Module):
    """skada hands its modules sample weights, which a plain network does not take."""

    def __init__(self, network):
        super().__init__()
        self.features, self.head = network.features, network.head

    def forward(self, images, sample_weight=None):
        return self.head(self.features(images))


def adapt(task):
    X = np.concatenate([task.source, task.target])
    y = np.concatenate([task.labels, np.full(len(task.target), -1)])
    domain = np.repeat([1, -2], [len(task.source), len(task.target)])
    adapter = DANN(
        Weighted(task.network), layer_name="features", num_features=256, optimizer=torch.optim.Adam, lr=1e-3,
        max_epochs=task.steps // (len(task.source) // task.batch), batch_size=task.batch,
        iterator_train__max_samples="source", train_split=None, verbose=0,
    )  # fmt: skip
    adapter.fit(X, y, sample_domain=domain)
    return lambda images: adapter.predict(images, sample_domain=np.full(len(images), -2), allow_source=True)


if __name__ == "__main__":
    from arm import main

    main(adapt)
