"""Shifted-window attention and the Swin Transformer V2 block.

Legend: B images, h w token grid, W windows of an image, n = window^2 tokens of a window, C width.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.derived import Derived
from skysense.layers.mlp import BLOCK, Mlp
from skysense.layers.packing import PackedLinear, pack_linear
from skysense.layers.positions import window_index, window_offsets


def partition(x: Tensor, window: int) -> Tensor:
    """`(B, h, w, C)` to `(B, W, n, C)`; h and w are multiples of the window."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b, -1, window * window, c)


def unpartition(x: Tensor, window: int, shape: tuple[int, int]) -> Tensor:
    """The inverse of `partition`: `(B, W, n, C)` to `(B, h, w, C)`."""
    h, w = shape
    x = x.view(x.shape[0], h // window, w // window, window, window, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], h, w, x.shape[-1])


def _regions(length: int, window: int, shift: int) -> Tensor:
    """Label of each place along an axis after a roll by `-shift`: places that were neighbours."""
    label = torch.zeros(length, dtype=torch.long)
    if shift:
        label[length - window : length - shift] = 1
        label[length - shift :] = 2
    return label


@functools.lru_cache(maxsize=64)
def region_mask(shape: tuple[int, int], window: int, shift: int, device: torch.device) -> Tensor:
    """`(1, W, n, n)` bool: pairs of a window that were neighbours before the roll."""
    with torch.inference_mode(False):  # so that training may use what inference made
        rows = _regions(shape[0], window, shift)
        cols = _regions(shape[1], window, shift)
        label = (3 * rows[:, None] + cols)[None, :, :, None]
        label = partition(label, window).squeeze(-1)  # (1, W, n)
        return (label[:, :, :, None] == label[:, :, None, :]).to(device)


def _length(x: Tensor) -> Tensor:
    """`(..., 1)` length of vectors `(..., d)`, no shorter than what `F.normalize` divides by."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.clamp(min=1e-12)


class WindowAttention(nn.Module):
    """Cosine attention in a window with a continuous position bias.

    Learned temperature clamped at 100, keys without bias, position bias `16 sigmoid(mlp(offset))`
    over log-spaced offsets. Source: Swin V2, section 3; details docs/sources.md 2.4 [code].
    """

    def __init__(self, dim: int, heads: int, window: int = 8, pretrained: int = 0) -> None:
        """Build for width `dim`; `pretrained` is the window of pre-training (0: the same)."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        self.heads, self.window = heads, window
        self.qkv: nn.Module = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False)
        )
        self.proj: nn.Module = nn.Linear(dim, dim)
        self.pretrained = pretrained
        self.offsets: Tensor
        self.index: Tensor
        self._position: Derived[Tensor] = Derived()
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Compute what is derived and not saved (a model built on the meta device lacks it)."""
        device = self.q_bias.device
        for name, value in (
            ("offsets", window_offsets(self.window, self.pretrained)),
            ("index", window_index(self.window)),
        ):
            self.register_buffer(name, value.to(device), persistent=False)

    def pack_weights(self) -> None:
        """Take the inference form, see `skysense.layers.packing`."""
        if isinstance(self.qkv, PackedLinear):
            return
        self.qkv = pack_linear(self.qkv, self._qkv_bias())
        self.proj = pack_linear(self.proj)

    def train(self, mode: bool = True) -> "WindowAttention":
        """Change the mode, and forget the position bias: not every optimizer leaves a trace."""
        self._position.clear()
        return super().train(mode)

    def position_bias(self) -> Tensor:
        """`(heads, n, n)`; kept between calls where nothing is trained."""
        parts = [*self.cpb_mlp.parameters(), self.offsets, self.index]
        gradients = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
        if self.training or gradients:
            self._position.clear()
            return self._position_bias()
        return self._position.get(parts, self._position_bias)

    def _position_bias(self) -> Tensor:
        """`(heads, n, n)`, computed."""
        table = 16 * torch.sigmoid(self.cpb_mlp(self.offsets))  # ((2 window - 1)^2, heads)
        bias: Tensor = table[self.index.flatten()].view(*self.index.shape, -1).permute(2, 0, 1)
        return bias.contiguous()

    def _qkv_bias(self) -> Tensor:
        """`(3C,)`: keys have none."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def forward(
        self, x: Tensor, allowed: Tensor | None = None, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Attend within windows.

        Args:
            x: `(B, W, n, C)`.
            allowed: `(B or 1, W, n, n)`: bool, which keys a query sees (at least one each), or
                float, what is added to their logits.
            shape: `(h, w)` where x holds only so much of each window, its upper left.

        Returns:
            `(B, W, n, C)`.
        """
        position = self.position_bias().to(x.dtype)
        if shape is not None and shape != (self.window, self.window):
            grid = torch.arange(self.window**2, device=x.device).view(self.window, -1)
            part = grid[: shape[0], : shape[1]].flatten()
            position = position[:, part[:, None], part]
        size = max(1, BLOCK // (x.shape[0] * x.shape[2] * x.shape[3]))  # windows at a time
        if torch.is_grad_enabled() or x.shape[1] <= size:
            return self._attend(x, allowed, position)
        parts = x.split(size, 1)
        masks = [None] * len(parts) if allowed is None else allowed.split(size, 1)
        done = [self._attend(p, m, position) for p, m in zip(parts, masks, strict=True)]
        return torch.cat(done, 1)

    def _attend(self, x: Tensor, allowed: Tensor | None, position: Tensor) -> Tensor:
        """Attention within some windows."""
        b, w, n, c = x.shape
        if isinstance(self.qkv, nn.Linear):
            qkv = F.linear(x, self.qkv.weight, self._qkv_bias())
        else:
            qkv = self.qkv(x)  # packed with its bias
        q, k, v = qkv.view(b * w, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scale = self.logit_scale.clamp(max=math.log(100.0)).exp()  # (heads, 1, 1)
        q = q * (scale / _length(q))
        k = k * (1 / _length(k))  # (B W, heads, n, d)
        mask = position[None, None]  # (1, 1, heads, n, n)
        if allowed is not None:
            if allowed.dtype == torch.bool:
                allowed = torch.zeros_like(allowed, dtype=q.dtype).masked_fill(~allowed, -torch.inf)
            mask = position + allowed[:, :, None]  # (B or 1, W, heads, n, n)
        if torch.is_grad_enabled() and mask.requires_grad and x.device.type == "cpu":
            # No fused kernel gives the bias a gradient here, and what stands in for it looks for
            # rows without a key, which there are none of.
            logits = (q @ k.transpose(-1, -2)).view(b, w, self.heads, n, n) + mask
            out = logits.flatten(0, 1).softmax(-1) @ v
        else:
            mask = mask.expand(b, w, -1, -1, -1).flatten(0, 1) if allowed is not None else mask[0]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(b, w, n, c))
        return projected


class SwinBlock(nn.Module):
    """Swin Transformer V2 block, residual post-norm: `x + norm(attention(x))`, `x + norm(mlp(x))`.

    Source: Swin V2, section 3.2; docs/sources.md 2.3 [code]. Padding and invalid tokens are masked
    keys here, where the released V1 code lets padding be attended to [ours].
    """

    def __init__(
        self, dim: int, heads: int, window: int = 8, shifted: bool = False, ratio: float = 4.0
    ) -> None:
        """Build for width `dim`; a shifted block moves its windows by half a window."""
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.attn = WindowAttention(dim, heads, window)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, ratio)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x: `(B, h, w, C)`, any h and w.
            valid: `(B, h, w)` bool, tokens that may be attended to; `None` for all.

        Returns:
            `(B, h, w, C)`.
        """
        x = x + self.norm1(self._windows(x, valid))
        out: Tensor = x + self.norm2(self.mlp(x))
        return out

    def _windows(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Pad, roll, attend in windows, and undo both."""
        b, h, w, _ = x.shape
        window = self.window
        if max(h, w) <= window - self.shift:  # all in one region of one window, padding apart
            return self._one_window(x, valid)
        pad_h, pad_w = -h % window, -w % window
        if pad_h or pad_w:
            valid = x.new_ones(b, h, w, dtype=torch.bool) if valid is None else valid
            valid = F.pad(valid, (0, pad_w, 0, pad_h))
            x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
        shape = (h + pad_h, w + pad_w)
        shift = self.shift  # also where one window spans all, or a batch's padding would matter
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
            valid = None if valid is None else valid.roll((-shift, -shift), (1, 2))
        allowed = self._allowed(valid, shape, x.device)
        out = unpartition(self.attn(partition(x, window), allowed), window, shape)
        if shift:
            out = out.roll((shift, shift), (1, 2))
        return out[:, :h, :w]

    def _one_window(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Attend over a map that no shift cuts, without the padding that would be masked."""
        b, h, w, c = x.shape
        allowed = None
        if valid is not None:
            itself = torch.eye(h * w, dtype=torch.bool, device=x.device)
            allowed = (valid.flatten(1)[:, None, :] | itself)[:, None]  # (B, 1, n, n)
        out: Tensor = self.attn(x.reshape(b, 1, h * w, c), allowed, (h, w))
        return out.view(b, h, w, c)

    def _allowed(
        self, valid: Tensor | None, shape: tuple[int, int], device: torch.device
    ) -> Tensor | None:
        """`(B or 1, W, n, n)` pairs that may see each other; a token always sees itself."""
        region = region_mask(shape, self.window, self.shift, device) if self.shift else None
        if valid is None:
            return region
        keys = partition(valid[..., None], self.window).squeeze(-1)[:, :, None, :]  # (B, W, 1, n)
        itself = torch.eye(keys.shape[-1], dtype=torch.bool, device=device)
        allowed = keys | itself
        return allowed if region is None else allowed & region
