"""ITA, dense image-text alignment: labelled places against the names of their classes.

Legend: N places, D width, C classes, E width of the text embeddings.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.engine.distributed import global_mean

MOST_SCALE = 100.0
"""Largest inverse temperature. Source: CLIP (arXiv 2103.00020, section 2.5) [paper]."""


class DenseTextAlignment(nn.Module):
    """InfoNCE of each labelled place's feature against the class embeddings.

    Source: SkySense V2, docs/sources.md 14 [paper]; the linear map to the text's width and the
    learned, bounded temperature are CLIP's (arXiv 2103.00020, section 2.5) [ours here].
    """

    def __init__(self, dim: int, text_dim: int, temperature: float = 0.07) -> None:
        """Build.

        Args:
            dim: D.
            text_dim: E.
            temperature: where the learned temperature starts; 0.07 in CLIP.
        """
        super().__init__()
        self.proj = nn.Linear(dim, text_dim)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, features: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled places.

        Args:
            features: `(N, D)`; ranks may have different N.
            labels: `(N,)` int64 classes, -1 where none is known.
            embeddings: `(C, E)` of the class names.

        Returns:
            Scalar, this rank's share of the mean over the places of all ranks, see `global_mean`;
            0 where there are none.
        """
        known = labels >= 0
        projected = self.proj(features)
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(projected.float(), dim=-1)
            scale = self.log_scale.float().exp().clamp(max=MOST_SCALE)
            logits = scale * unit @ F.normalize(embeddings.float(), dim=-1).T  # (N, C)
            entropy = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
            return global_mean(entropy, known)
