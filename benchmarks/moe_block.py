"""One mixture-of-experts block against its dense twin, forward, at 4,096 tokens.

Limit: 1.25 (1.0 would be free). Run: python benchmarks/moe_block.py
"""

import argparse
import statistics

import torch
from _common import alternate, finish, paired_ratio

from skysense.models.skysense_v2.backbone import PlainBlock, rotary_table


def main() -> None:
    """Time both blocks in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backward", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratios = {}
    times = {}
    for width in (128, 256, 384):
        torch.manual_seed(0)
        x = torch.randn(1, 4 + 4096, width, device=device)
        rotary = rotary_table((64, 64), 32, device)
        blocks = [PlainBlock(width, width // 32, experts).to(device) for experts in (0, 8)]

        def run(block: PlainBlock, x: torch.Tensor = x, rotary: tuple = rotary) -> None:
            with torch.set_grad_enabled(options.backward):
                out, _ = block(x, None, rotary, 4)
                if options.backward:
                    out.sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        dense, moe = alternate(
            lambda b=blocks[0]: run(b), lambda b=blocks[1]: run(b), options.rounds
        )
        ratios[width] = round(paired_ratio(moe, dense), 3)
        times[width] = {
            "moe_ms": round(1e3 * statistics.median(moe), 1),
            "dense_ms": round(1e3 * statistics.median(dense), 1),
        }
        print(f"width {width}: {times[width]} ratio {ratios[width]}")
    name = "moe_block_backward" if options.backward else "moe_block"
    worst = max(ratios.values())
    finish(
        name,
        {"tokens": 4096, "by_width": times, "ratio": ratios, "worst": worst, "limit": 1.25},
        worst <= 1.25,
    )


if __name__ == "__main__":
    main()
