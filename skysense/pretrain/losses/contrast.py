"""L_CL: a student's vector against a teacher's, by their softmax over learned codes.

Legend: N rows of this rank, D width, K codes.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.engine.distributed import gather_rows, global_mean, sum_over_ranks
from skysense.pretrain.losses.sinkhorn import balance

LEAST_VARIANCE = 1e-10
"""Of a channel that is scaled up: below, it is rounding."""


class CodeHead(nn.Module):
    """MLP, unit bottleneck, cosine to K unit codes.

    Source: the head of DINO (arXiv 2104.14294, Appendix C) with its last layer's gain fixed to 1
    [paper]. The cosines are computed in float32 also under autocast, for a small temperature
    multiplies their rounding errors [ours].
    """

    def __init__(
        self,
        dim: int,
        codes: int,
        hidden: int = 2048,
        bottleneck: int = 256,
        layers: int = 3,
        standard: bool = False,
    ) -> None:
        """Build.

        Args:
            dim: D.
            codes: K.
            hidden: width between the MLP's layers.
            bottleneck: width in which vectors are compared with codes.
            layers: linear maps of the MLP, at least 1.
            standard: give each channel of the bottleneck mean 0 and spread 1 over the rows, as
                SwAV's and BYOL's heads do inside [ours here]: what all rows share would otherwise
                fill the cosines, and small batches would take long to find what differs.
        """
        super().__init__()
        widths = [dim, *[hidden] * (layers - 1), bottleneck]
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            parts += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*parts[:-1])
        self.codes = codes
        self.standard = standard
        self.directions = nn.Parameter(torch.empty(codes, bottleneck))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights, as DINO does."""
        for part in self.mlp:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        nn.init.trunc_normal_(self.directions, std=0.02)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Cosines `(N, K)` in float32, of features `(N, D)` of which those of weight 0 are none."""
        return self.compare(self.mlp(x), weight)

    def compare(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Cosines of the bottleneck's vectors with the codes.

        Args:
            x: `(..., N, bottleneck)`, what the MLP made.
            weight: `(..., N)`; rows of weight 0 are none.

        Returns:
            `(..., N, K)` float32.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.standard:
                x = standardize(x, x.new_ones(x.shape[:-1]) if weight is None else weight)
            unit = F.normalize(x, dim=-1)
            cosines: Tensor = F.linear(unit, F.normalize(self.directions.float(), dim=-1))
            return cosines


def standardize(x: Tensor, weight: Tensor) -> Tensor:
    """Mean 0 and spread 1 of each channel over the rows of all ranks, with the gradient of both.

    Args:
        x: `(..., N, D)`; ranks may have different N.
        weight: `(..., N)`, at least 0.

    Returns:
        `(..., N, D)`.
    """
    share = weight[..., None].to(x.dtype)
    kept = torch.where(share > 0, x, 0)
    own = torch.cat([(share * kept).sum(-2), share.sum(-2)], -1)  # (..., D + 1)
    total, count = gather_rows(own[None]).sum(0).split([x.shape[-1], 1], -1)
    count = count.clamp(min=1)
    centered = x - (total / count)[..., None, :]
    kept = torch.where(share > 0, centered, 0)
    square = gather_rows((share * kept * kept).sum(-2)[None]).sum(0)
    scale = (square / count).clamp(min=LEAST_VARIANCE).rsqrt()
    standard: Tensor = centered * scale[..., None, :]
    return standard


@torch.no_grad()
def sinkhorn_targets(
    logits: Tensor, temperature: float, weight: Tensor | None = None, iterations: int = 3
) -> Tensor:
    """Targets that use all codes equally, over the rows of all ranks.

    Source: SwAV, as the teacher of DINOv2 (arXiv 2304.07193, section 4) uses it [paper].

    Args:
        logits: `(..., N, K)` cosines of the teacher; ranks may have different N.
        temperature: of the softmax.
        weight: `(..., N)`; rows of weight 0 take no part.
        iterations: alternations.

    Returns:
        `(..., N, K)`; rows sum to 1, or are 0 where the weight is 0.
    """
    return balance(logits, temperature, weight, iterations, sum_over_ranks)


class Centering(nn.Module):
    """Targets by a softmax around the running mean of the logits. Source: DINO, 3.1 [paper]."""

    def __init__(self, codes: int, momentum: float = 0.9) -> None:
        """Build with the center at 0.

        Args:
            codes: K.
            momentum: of the running mean; 0.9 in DINO.
        """
        super().__init__()
        self.momentum = momentum
        self.center: Tensor
        self.register_buffer("center", torch.zeros(codes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float, weight: Tensor | None = None) -> Tensor:
        """Targets with the center so far; in training the center then moves.

        Args:
            logits: `(N, K)` cosines of the teacher.
            temperature: of the softmax.
            weight: `(N,)`; rows of weight 0 do not move the center.

        Returns:
            `(N, K)` rows that sum to 1.
        """
        logits = logits.float()
        targets = ((logits - self.center) / temperature).softmax(-1)
        if self.training:
            self._move(logits, logits.new_ones(len(logits)) if weight is None else weight)
        return targets

    def _move(self, logits: Tensor, weight: Tensor) -> None:
        """Move the center towards the mean over the rows of all ranks, if there are any."""
        weight = weight.float()
        kept = torch.where(weight[:, None] > 0, logits, 0)
        total = sum_over_ranks(torch.cat([weight @ kept, weight.sum()[None]]))  # (K + 1,)
        mean = total[:-1] / torch.where(total[-1] > 0, total[-1], 1)
        moved = torch.lerp(mean, self.center, self.momentum)
        self.center.copy_(torch.where(total[-1] > 0, moved, self.center))


def contrast(
    student: Tensor, target: Tensor, temperature: float, weight: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the student's softmax against targets. Source: DINO, eq. 1 [paper].

    Args:
        student: `(N, K)` logits.
        target: `(N, K)`, without gradient.
        temperature: of the student's softmax.
        weight: `(N,)`; rows of weight 0 do not count.

    Returns:
        Scalar, this rank's share of the mean over the rows of all ranks, see `global_mean`.
    """
    with torch.autocast(student.device.type, enabled=False):
        logits = student.float() / temperature
        entropy = F.cross_entropy(logits, target.detach().float(), reduction="none")  # (N,)
        return global_mean(entropy, weight)
