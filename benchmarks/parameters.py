"""Parameter counts of the paper's size (C = 352), on the meta device, beside the paper's table.

Limits: tokenizers 0.09M; backbone within 1.1% of 661.40M dense and 1994.10M with experts; the
experts add 1332.70M, exact to 0.01M. Run: python benchmarks/parameters.py
"""

from _common import finish

from skysense.hub import describe

PAPER = {"v2_huge": 661.40, "v2_huge_moe": 1994.10}


def main() -> None:
    """Count, compare, print."""
    counts = {name: describe(name).parameters for name in PAPER}
    passed = True
    ratios = {}
    for name, parts in counts.items():
        print(name, {part: f"{count / 1e6:.2f}M" for part, count in parts.items()})
        ratios[name] = parts["backbone"] / 1e6 / PAPER[name]
        passed &= abs(ratios[name] - 1) <= 0.011
        passed &= round(parts["tokenizers"] / 1e6, 2) == 0.09
    added = (counts["v2_huge_moe"]["backbone"] - counts["v2_huge"]["backbone"]) / 1e6
    passed &= abs(added - 1332.70) <= 0.01
    finish(
        "parameters",
        {
            "measured_millions": {
                name: round(parts["backbone"] / 1e6, 2) for name, parts in counts.items()
            },
            "paper_millions": PAPER,
            "ratio": {name: round(ratio, 4) for name, ratio in ratios.items()},
            "tokenizers_millions": round(counts["v2_huge"]["tokenizers"] / 1e6, 4),
            "experts_add_millions": round(added, 4),
        },
        passed,
    )


if __name__ == "__main__":
    main()
