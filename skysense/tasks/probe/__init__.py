"""How much the features of a frozen model say about classes it was never told."""

from skysense.tasks.probe.evaluation import (
    ProbeResult,
    Protocol,
    evaluate,
    probe_vectors,
    train_and_test,
)
from skysense.tasks.probe.few_shot import FewShot, few_shot
from skysense.tasks.probe.scores import Scores, difference
from skysense.tasks.probe.twin import fit_read_out, random_twin
from skysense.tasks.probe.vectors import VectorCache, embed_set

__all__ = [
    "FewShot",
    "ProbeResult",
    "Protocol",
    "Scores",
    "VectorCache",
    "difference",
    "embed_set",
    "evaluate",
    "few_shot",
    "fit_read_out",
    "probe_vectors",
    "random_twin",
    "train_and_test",
]
