"""From a feature map and a handful of labels to a land-cover map.

from skysense.tasks.mapping import map_classes

result = map_classes("features.tif", "labels.geojson", "landcover.tif")
result.metrics["cross_validation"]["accuracy"]
"""

from skysense.tasks.mapping.cells import label_cells
from skysense.tasks.mapping.features import FeatureMap, is_class_map, is_feature_map
from skysense.tasks.mapping.labels import LabelSet, MapWarning, read_labels
from skysense.tasks.mapping.mapping import MapResult, check_outputs, map_classes, map_clusters
from skysense.tasks.mapping.opening import holds_features, is_store, open_features
from skysense.tasks.mapping.sources import FeatureSource

__all__ = [
    "FeatureMap",
    "FeatureSource",
    "LabelSet",
    "MapResult",
    "MapWarning",
    "check_outputs",
    "holds_features",
    "is_class_map",
    "is_feature_map",
    "is_store",
    "label_cells",
    "map_classes",
    "map_clusters",
    "open_features",
    "read_labels",
]
