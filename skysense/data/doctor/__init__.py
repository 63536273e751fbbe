"""The doctor: what rasters are, what is wrong with them, and which option mends it.

It looks at the header and at about 16 windows of each file, so that whole archives can be examined
in minutes. What it says are `Finding`s with a stable code (`CODES`). Source: *ours*.
"""

from skysense.data.doctor.chosen import Chosen
from skysense.data.doctor.examination import count_files, examine, first_errors
from skysense.data.doctor.findings import CODES, FileReport, Finding, Guess, Report

__all__ = [
    "CODES",
    "Chosen",
    "FileReport",
    "Finding",
    "Guess",
    "Report",
    "count_files",
    "examine",
    "first_errors",
]
