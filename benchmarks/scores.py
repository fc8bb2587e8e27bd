"""This project's label-free scores beside pytorch-adapt's and skada's, on the same arrays.

    python benchmarks/scores.py RUN

The arrays are the features and logits that a finished run keeps of its last classifier. The peers run in the virtual
environments of benchmarks/peers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from cells import where
from peers import SCRIPTS, python_of

from uda.evaluation import selection
from uda.runs.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="where the peers' environments are")
    given = parser.parse_args()
    outputs = Run(given.run).outputs()
    assert outputs.source_features is not None
    weights = selection.density_ratio(outputs.source_features, outputs.target_features)
    loss = F.cross_entropy(*outputs.source, reduction="none").double()
    logits, features = outputs.target_logits, outputs.target_features.float()
    ours = {
        "entropy": selection.entropy(logits),
        "diversity": selection.diversity(logits),
        "information_maximization": selection.information_maximization(logits),
        "batch_nuclear_norm": selection.batch_nuclear_norm(logits),
        "soft_neighbourhood_density": selection.soft_neighbourhood_density(logits),
        "class_cluster_agreement": selection.class_cluster_agreement(features, logits),
        "deep_embedded_validation": selection.deep_embedded_validation(loss, weights),
    }
    theirs = {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            f"{folder}/outputs.npz",
            target_logits=logits.numpy(),
            target_features=features.numpy(),
            weights=weights.numpy(),
            loss=loss.numpy(),
        )
        for peer in ("pytorch_adapt", "skada"):
            python = python_of(given.out.absolute(), f"with_{peer}")
            command = [python, str(SCRIPTS / f"scores_{peer}.py"), folder]
            environment = os.environ | {"PYTHONWARNINGS": "ignore"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            theirs[peer] = json.loads(done.stdout.splitlines()[-1])
    print("| score | uda | pytorch-adapt | skada |\n|---|---|---|---|")
    for name, value in ours.items():
        others = (f"{theirs[peer][name]:.5f}" if name in theirs[peer] else "" for peer in ("pytorch_adapt", "skada"))
        print(f"| {name} | {value:.5f} | {' | '.join(others)} |")
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
