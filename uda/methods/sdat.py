"""SDAT: Rangwani et al., "A Closer Look at Smoothness in Domain Adversarial Training", ICML 2022.

CDAN whose source cross-entropy is to be flat where it is low, which makes the adversarial game stable:

    total = max over |e| <= rho of cross-entropy(source) at the weights + e  +  weight x adversarial (as in CDAN)

The maximum is found by one step of sharpness-aware minimisation (Foret et al., ICLR 2021). The adversarial loss is left as it is:
the paper finds that its smoothing does harm. The losses that are handed out are those at the weights themselves.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.cdan import CDAN, CDANSettings
from uda.models.layers import SOURCE


class SDATSettings(CDANSettings):
    """SDAT's settings."""

    name: str = "sdat"
    rho: NonNegativeFloat = 0.02
    """how far around the weights the source's loss is to be low: a Euclidean length; 0 is CDAN"""


class SDAT(CDAN):
    """CDAN in a flat place of the source's loss."""

    Settings = SDATSettings
    settings: SDATSettings

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One sharpness-aware step."""
        s, values = self.settings, self.losses(batch)

        def class_loss() -> Tensor:
            return losses.cross_entropy(self.classify(self.features(batch.source, SOURCE)), batch.source_labels)

        adversarial = s.adversarial_weight * values["discriminator_adversarial"]
        self.players.step_sharpness_aware("network", values["class"], class_loss, adversarial, s.rho)
        return self.advance(values)
