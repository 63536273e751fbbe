"""QSACL: learned queries gather what a view shows, and are contrasted query by query.

Legend: B samples, N places, D width, m queries, d channels of a head.
"""

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.attention import Attention
from skysense.layers.mlp import Mlp


class SemanticQueries(nn.Module):
    """m learned queries and one Transformer decoder layer over the features of a view.

    Source: SkySense V2, docs/sources.md 14: m = 16 queries, one decoder layer, cross-attention to
    the features [paper]. That the layer is pre-norm, and that the queries attend to one another
    first, as in any decoder layer, is [ours]; that first half sees no image and is computed once.
    """

    def __init__(self, dim: int, queries: int = 16, heads: int = 8, ratio: float = 4.0) -> None:
        """Build for width `dim`, which `heads` divides.

        Raises:
            ValueError: it does not.
        """
        super().__init__()
        self.queries = nn.Parameter(torch.empty(queries, dim))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.norm_tokens = nn.LayerNorm(dim)
        self.cross = CrossAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, ratio)

    @overload
    def forward(
        self, tokens: Tensor, valid: Tensor | None = ..., with_attention: Literal[False] = ...
    ) -> Tensor: ...

    @overload
    def forward(
        self, tokens: Tensor, valid: Tensor | None, with_attention: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, tokens: Tensor, valid: Tensor | None = None, with_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """What each query found.

        Args:
            tokens: `(B, N, D)`.
            valid: `(B, N)` bool; `None` for all. Of a sample without any, the result means nothing.
            with_attention: also say where each query looked.

        Returns:
            `(B, m, D)`; with `with_attention` also `(B, m, N)`, the mean over heads, whose rows
            sum to 1.
        """
        x = self.queries[None]
        x = x + self.attn(self.norm1(x))  # (1, m, D)
        found, attention = self.cross(
            self.norm2(x), self.norm_tokens(tokens), valid, with_attention
        )
        x = x + found  # (B, m, D)
        out: Tensor = x + self.mlp(self.norm3(x))
        return (out, attention) if with_attention else out


class CrossAttention(nn.Module):
    """Multi-head attention of the same queries to the tokens of each sample."""

    def __init__(self, dim: int, heads: int) -> None:
        """Build for width `dim`, which `heads` divides."""
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Tensor, tokens: Tensor, valid: Tensor | None, with_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, fused unless the attention itself is asked for.

        Args:
            queries: `(1, m, D)`.
            tokens: `(B, N, D)`.
            valid: `(B, N)` bool, or `None`.
            with_attention: return it.

        Returns:
            `(B, m, D)`, and `(B, m, N)` or `None`.
        """
        q = self.q(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (1, heads, m, d)
        kv = self.kv(tokens).unflatten(-1, (2, self.heads, -1))  # (B, N, 2, heads, d)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d)
        mask = None
        if (
            valid is not None
        ):  # of a sample without valid tokens all, for a softmax over none is NaN
            mask = (valid | ~valid.any(-1, keepdim=True))[:, None, None]
        if not with_attention:
            q = q.expand(len(tokens), -1, -1, -1)
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return self._merge(found), None
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # (B, heads, m, N)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        attention = scores.softmax(-1)
        return self._merge(attention.to(v.dtype) @ v), attention.mean(1)

    def _merge(self, x: Tensor) -> Tensor:
        """`(B, heads, m, d)` through the output projection, `(B, m, D)`."""
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out


def query_pairs(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pair query i of the student's global view with query i of the teacher's local one, and back.

    The mean contrast of these rows is `1 / (2 m) sum_i [CL(z_i^g, z_i^l') + CL(z_i^l, z_i^g')]`,
    averaged over samples. Source: SkySense V2, docs/sources.md 14 [paper].

    Args:
        student: what the queries found `(B, m, D)` in a global and in a local view.
        teacher: the same of the teacher.
        weight: `(B,)`, 0 where a view of the sample shows nothing.

    Returns:
        Rows of the student `(2 B m, D)`, first the global ones, of the teacher `(2 B m, D)` without
        gradient, first the local ones, and their weights `(2 B m,)`.
    """
    own = torch.cat(student).flatten(0, 1)
    other = torch.cat(teacher[::-1]).flatten(0, 1).detach()
    queries = student[0].shape[1]
    return own, other, weight.float().repeat_interleave(queries).repeat(2)
