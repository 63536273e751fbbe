"""Global self-attention, with rotary positions, masked keys and prompt tokens.

Legend: B sequences, P prompt tokens, N image tokens, D width, d channels of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.packing import PackedLinear, pack_linear
from skysense.layers.positions import rotate

PROMPT_RIVALS = 64
"""How many image tokens the prompts compete with for attention, whatever the image's size: as
many as a window of stages 1 and 2 holds. [ours]"""


class Attention(nn.Module):
    """Multi-head self-attention over `[prompts, image tokens]`.

    Image tokens attend to image tokens with rotary positions; prompts have no position. In one
    softmax over both, the prompts' share would depend on the number of image tokens and on a
    token's distance to the border, and neither a constant image nor two tile sizes would give
    the same map. So the two groups have a softmax each, and their outputs are mixed with a share
    free of position and size: `sigmoid(logsumexp(q k_prompt) - q mean(k_image) - log 64)`. It
    equals the joint softmax where 64 image tokens have one key. [ours]; without prompts this is
    plain self-attention [code].
    """

    def __init__(self, dim: int, heads: int) -> None:
        """Build for width `dim`, which `heads` divides."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        self.heads = heads
        self.qkv: nn.Module = nn.Linear(dim, 3 * dim)
        self.proj: nn.Module = nn.Linear(dim, dim)

    def pack_weights(self) -> None:
        """Take the inference form, see `skysense.layers.packing`: queries, and keys with values."""
        if not isinstance(self.qkv, nn.Linear):
            return
        (weight, bias), dim = (self.qkv.weight, self.qkv.bias), self.qkv.in_features
        pairs = zip(weight.split((dim, 2 * dim)), bias.split((dim, 2 * dim)), strict=True)
        self.qkv = nn.ModuleList(PackedLinear(w, b) for w, b in pairs)
        self.proj = pack_linear(self.proj)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        prompts: int = 0,
        first_only: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            x: `(B, P + N, D)`, prompts in front.
            valid: `(B, N)` bool, image tokens that may be attended to (at least one a sequence);
                `None` for all.
            rotary: tables of `rotary_2d` for the N image tokens.
            prompts: P.
            first_only: compute the first token's output alone (without prompts).

        Returns:
            `(B, P + N, D)`, or `(B, 1, D)` with `first_only`.
        """
        q, k, v = self._project(x, first_only)
        mask = None if valid is None else valid[:, None, None, :]
        if not prompts:
            if rotary is not None:
                q, k = rotate(q, rotary), rotate(k, rotary)
            return self._merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        prompt_k, image_k = k[:, :, :prompts], k[:, :, prompts:]
        prompt_v, image_v = v[:, :, :prompts], v[:, :, prompts:]
        prompt_q, image_q = q[:, :, :prompts], q[:, :, prompts:]
        turned_q, turned_k = image_q, image_k
        if rotary is not None:
            turned_q, turned_k = rotate(image_q, rotary), rotate(image_k, rotary)
        attend = F.scaled_dot_product_attention
        to_image = torch.cat(
            [
                attend(prompt_q, image_k, image_v, attn_mask=mask),
                attend(turned_q, turned_k, image_v, attn_mask=mask),
            ],
            2,
        )  # (B, heads, P + N, d)
        return self._merge(self._mix(q, to_image, prompt_k, prompt_v, image_k, mask))

    def _project(self, x: Tensor, first_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, `(B, heads, tokens, d)` each."""
        if isinstance(self.qkv, nn.Linear) and not first_only:
            qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, P + N, 3, heads, d)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        rows = x[:, :1] if first_only else x
        if isinstance(self.qkv, nn.ModuleList):  # packed
            q, kv = self.qkv[0](rows), self.qkv[1](x)
        else:
            assert isinstance(self.qkv, nn.Linear)
            dim = x.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(rows, weight[:dim], bias[:dim])
            kv = F.linear(x, weight[dim:], bias[dim:])
        k, v = kv.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q.unflatten(-1, (self.heads, -1)).transpose(1, 2), k, v

    def _merge(self, x: Tensor) -> Tensor:
        """`(B, heads, tokens, d)` through the output projection, `(B, tokens, D)`."""
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out

    @staticmethod
    def _mix(
        q: Tensor,
        to_image: Tensor,
        prompt_k: Tensor,
        prompt_v: Tensor,
        image_k: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Mix attention to the prompts into attention to the image, `(B, heads, P + N, d)`."""
        scale = q.shape[-1] ** -0.5
        if mask is None:
            mean_k = image_k.mean(2, keepdim=True)  # (B, heads, 1, d)
        else:
            kept = mask.transpose(-1, -2).to(image_k.dtype)  # (B, 1, N, 1)
            mean_k = (image_k * kept).sum(2, keepdim=True) / kept.sum(2, keepdim=True)
        keys = torch.cat([prompt_k, mean_k], 2).transpose(-1, -2)  # (B, heads, d, P + 1)
        logits, rival = ((q * scale) @ keys).split([prompt_k.shape[2], 1], -1)
        rival = rival + math.log(PROMPT_RIVALS)
        share = torch.sigmoid(logits.logsumexp(-1, keepdim=True) - rival)  # (B, heads, P + N, 1)
        mixed: Tensor = to_image * (1 - share) + (logits.softmax(-1) * share) @ prompt_v
        return mixed
