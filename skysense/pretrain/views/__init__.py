"""Views of a batch: crops of the same ground in all modalities, turned, augmented, in numbers."""

from skysense.pretrain.views.config import HrConfig, S1Config, S2Config, ViewConfig
from skysense.pretrain.views.drawing import make_views
from skysense.pretrain.views.geometry import View, Views, correspond, places

__all__ = [
    "HrConfig",
    "S1Config",
    "S2Config",
    "View",
    "ViewConfig",
    "Views",
    "correspond",
    "make_views",
    "places",
]
