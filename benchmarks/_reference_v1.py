"""The cost of the released V1 code, written out plainly over our modules' weights.

What it does on purpose: attention that materializes its weights (and, in the image and fusion
transformers, averages and drops them), the position bias recomputed at each call, the shift mask
rebuilt by slicing at each call, merging through unfold, every token of the last fusion layer (the
up-sampling head at its full width is timed with it). Source: docs/sources.md 11.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.models.fusion import FusionTransformer
from skysense.models.skysense_v1 import SwinBackbone, VisionTransformer


def swin(model: SwinBackbone, pixels: Tensor) -> Tensor:
    """The last output of the `hr` backbone, `(B, h, w, D)`; sides in whole windows."""
    tokenizer = model.tokenizer
    x = tokenizer.projection(pixels)
    shape = (x.shape[2], x.shape[3])
    x = tokenizer.norm(x.flatten(2).transpose(1, 2))
    for i, blocks in enumerate(model.stages):
        if i:
            merging = model.merges[i - 1]
            grid = x.transpose(1, 2).unflatten(2, shape)
            x = F.unfold(grid, 2, stride=2).transpose(1, 2)
            x = merging.norm(merging.reduction(x))
            shape = (shape[0] // 2, shape[1] // 2)
        for block in blocks:
            x = x + block.norm1(_windows(block, x, shape))
            x = block.norm3(x + block.norm2(block.mlp(x)))
    return model.norms[str(len(model.stages) - 1)](x).unflatten(1, shape)


def _windows(block: nn.Module, x: Tensor, shape: tuple[int, int]) -> Tensor:
    """Shifted-window attention of a block, `(B, N, D)`."""
    b, _, c = x.shape
    h, w = shape
    n = block.window
    shift = 0 if min(shape) == n else block.shift
    x = x.view(b, h, w, c)
    mask = None
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
        labels = torch.zeros(1, h, w, 1)
        cuts = (slice(0, -n), slice(-n, -shift), slice(-shift, None))
        for i, rows in enumerate(cuts):
            for j, cols in enumerate(cuts):
                labels[:, rows, cols] = 3 * i + j
        labels = _partition(labels, n).squeeze(-1)
        different = labels[:, None] != labels[:, :, None]
        mask = torch.zeros(different.shape).masked_fill(different, -100.0)
    out = _attention(block.attn, _partition(x, n), mask)
    out = out.view(b, h // n, w // n, n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
    if shift:
        out = out.roll((shift, shift), (1, 2))
    return out.flatten(1, 2)


def _partition(x: Tensor, n: int) -> Tensor:
    """`(B, h, w, C)` to `(B W, n n, C)`."""
    b, h, w, c = x.shape
    return x.view(b, h // n, n, w // n, n, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, c)


def _attention(attn: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Cosine attention over explicit logits, `(B W, n, C)`."""
    windows, n, c = x.shape
    bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
    qkv = F.linear(x, attn.qkv.weight, bias)
    q, k, v = qkv.reshape(windows, n, 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
    logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    logits = logits * attn.logit_scale.clamp(max=torch.log(torch.tensor(100.0))).exp()
    table = attn.cpb_mlp(attn.offsets)
    position = table[attn.index.flatten()].view(n, n, -1).permute(2, 0, 1).contiguous()
    logits = logits + (16 * torch.sigmoid(position))[None]
    if mask is not None:
        count = mask.shape[0]
        logits = logits.view(-1, count, attn.heads, n, n) + mask[None, :, None]
        logits = logits.view(-1, attn.heads, n, n)
    out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(windows, n, c)
    return attn.proj(out)


def _layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Pre-norm layer with `torch`'s multi-head attention, weights requested."""
    normed = layer.norm1(x).transpose(0, 1)  # (N, B, D)
    attn = layer.attn
    out, _ = F.multi_head_attention_forward(
        normed,
        normed,
        normed,
        x.shape[-1],
        attn.heads,
        attn.qkv.weight,
        attn.qkv.bias,
        None,
        None,
        False,
        0.0,
        attn.proj.weight,
        attn.proj.bias,
        training=False,
        need_weights=True,
    )
    x = x + out.transpose(0, 1)
    return x + layer.mlp(layer.norm2(x))


def vit(model: VisionTransformer, pixels: Tensor) -> Tensor:
    """The last output of an image transformer, `(B, h, w, D)`, at its own table's grid."""
    x = model.tokenizer.projection(pixels)
    shape = (x.shape[2], x.shape[3])
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + model.position
    for layer in model.layers:
        x = _layer(layer, x)
    return x[:, 1:].unflatten(1, shape)


def fusion(model: FusionTransformer, tokens: Tensor) -> Tensor:
    """The class token's output, `(P, D)`, of tokens `(P, N, in_dim)`."""
    x = model.proj(tokens)
    x = torch.cat([model.extra_token.expand(len(x), -1, -1), x], 1)
    for layer in model.layers:
        x = _layer(layer, x)
    return x[:, 0]
