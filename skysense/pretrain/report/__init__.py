"""The report of a pre-training run: what it learned, how, and where the time went."""

from skysense.pretrain.report.pictures import AttentionSheet, NeighborSheet, Pictures
from skysense.pretrain.report.writing import REPORT_NAME, write_report

__all__ = ["REPORT_NAME", "AttentionSheet", "NeighborSheet", "Pictures", "write_report"]
