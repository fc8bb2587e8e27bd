"""pytorch-adapt's validators on the arrays of a folder, printed as JSON by this project's names, in its scale."""

import json
import sys

import numpy as np
import torch
from pytorch_adapt.validators import (
    BNMValidator,
    ClassClusterValidator,
    DiversityValidator,
    EntropyValidator,
    IMValidator,
    SNDValidator,
)
from pytorch_adapt.validators.deep_embedded_validator import get_dev_risk

arrays = {name: torch.from_numpy(value) for name, value in np.load(f"{sys.argv[1]}/outputs.npz").items()}
logits = arrays["target_logits"]
target = {"logits": logits, "preds": logits.softmax(1), "features": torch.nn.functional.normalize(arrays["target_features"])}
count, classes = logits.shape
torch.manual_seed(0)
np.random.seed(0)
print(
    json.dumps(
        {
            "entropy": -EntropyValidator()(target_train=target),
            "diversity": DiversityValidator()(target_train=target),
            "information_maximization": IMValidator()(target_train=target),
            "batch_nuclear_norm": BNMValidator()(target_train=target) * (count / classes) ** 0.5,  # divided by sqrt(M K), not M
            "soft_neighbourhood_density": SNDValidator()(target_train=target),
            "class_cluster_agreement": ClassClusterValidator()(target_train=target),
            "deep_embedded_validation": float(get_dev_risk(arrays["weights"][:, None], arrays["loss"][:, None], None)),
        }
    )
)
