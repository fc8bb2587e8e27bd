"""Adaptation methods: one file each, whose header is its objective. What a method is: `uda.methods.base.Method`.

A user's own method is a class, ``FILE.py:CLASS``; easiest as a subclass of `uda.methods.base.OneNetwork` with its `losses`.
"""

from __future__ import annotations

from typing import Any

from uda import plugins
from uda.errors import UserError
from uda.methods.aad import AaD
from uda.methods.adabn import AdaBN
from uda.methods.base import Method
from uda.methods.cdan import CDAN
from uda.methods.cogan import CoGAN
from uda.methods.dan import DAN
from uda.methods.dance import DANCE
from uda.methods.dann import DANN
from uda.methods.deep_coral import DeepCORAL
from uda.methods.dirt_t import DIRTT
from uda.methods.drit import DRIT
from uda.methods.fixmatch import FixMatch
from uda.methods.im import InformationMaximization
from uda.methods.label_propagation import LabelPropagation
from uda.methods.latent_mapping import LatentMapping
from uda.methods.mcc import MCC
from uda.methods.mcd import MCD
from uda.methods.mean_teacher import MeanTeacher
from uda.methods.mic import MIC
from uda.methods.sdat import SDAT
from uda.methods.shot import SHOT
from uda.methods.source_only import SourceOnly
from uda.methods.supcon import SupCon
from uda.methods.target_only import TargetOnly
from uda.methods.unit import UNIT
from uda.methods.unit_translation import UNITTranslation
from uda.methods.vada import VADA

METHODS: dict[str, type[Method]] = {
    method.__module__.rpartition(".")[2]: method
    for method in (
        SourceOnly, TargetOnly, AdaBN, DANN, CDAN, SDAT, DAN, DeepCORAL, MCD, MCC, MeanTeacher, VADA, DIRTT, SHOT, AaD, SupCon,
        InformationMaximization, FixMatch, MIC, DANCE, LabelPropagation, UNIT, DRIT, LatentMapping, CoGAN, UNITTranslation,
    )
}  # fmt: skip
"""the shipped methods, by the names of their files"""


def find_method(name: str) -> type[Method]:
    """A method by its name in `METHODS`, or a user's own by ``FILE.py:CLASS``.

    Raises:
        UserError: where there is none, or the class is no `Method`.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" not in name:
        raise UserError.unknown("method", name, METHODS, "your own: --method FILE.py:CLASS")
    own: Any = plugins.load(name)
    if not (isinstance(own, type) and issubclass(own, Method)):
        raise UserError(f"{name} is not a method; make it a subclass of uda.methods.base.OneNetwork (or of Method)")
    return own
