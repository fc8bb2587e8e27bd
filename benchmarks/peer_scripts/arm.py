"""What every side's script does around its own code: reads the arrays, adapts, and prints seconds and accuracy as JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from network import Net


def main(adapt: Callable[[SimpleNamespace], Callable[[np.ndarray], np.ndarray]]) -> None:
    """`adapt` is given the task (network, arrays, step count, batch size, seed), and returns images -> predicted classes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="of arrays.npz and network.pt")
    parser.add_argument("--method", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--precision", default="fp32")
    task = parser.parse_args(namespace=SimpleNamespace())
    arrays = np.load(f"{task.folder}/arrays.npz")
    task.source, task.labels, task.target = arrays["source"], arrays["labels"], arrays["target"]
    task.network = Net()
    task.network.load_state_dict(torch.load(f"{task.folder}/network.pt", weights_only=True))
    torch.manual_seed(task.seed)
    np.random.seed(task.seed)
    began = time.perf_counter()
    predict = adapt(task)
    seconds = time.perf_counter() - began
    right = float((predict(arrays["test"]) == arrays["test_labels"]).mean())
    print(json.dumps({"seconds": seconds, "accuracy": right}))
