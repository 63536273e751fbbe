"""The index of a checkpoint, read without running what it says.

`torch.distributed.checkpoint` unpickles its index, and values that are not tensors. Here an index
may name the plain dataclasses that every index has and nothing else, and hold tensors alone.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

_METADATA = "torch.distributed.checkpoint.metadata"
_INDEX_CLASSES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(
        (_METADATA, name)
        for name in (
            "Metadata",
            "MetadataIndex",
            "TensorStorageMetadata",
            "TensorProperties",
            "ChunkStorageMetadata",
            "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        )
    ),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
}


class Reader(FileSystemReader):
    """Reads an index that names nothing but the classes of an index, and tensors alone."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ANN401
        """The index.

        Raises:
            ValueError: it holds something else than tensors.
            pickle.UnpicklingError: it names a class that no index has.
        """
        path = Path(self.path) / ".metadata"
        with path.open("rb") as file:
            metadata: Metadata = _IndexUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        for key, item in metadata.state_dict_metadata.items():
            if not isinstance(item, TensorStorageMetadata):
                raise ValueError(f"{path} holds `{key}`, which is not a tensor")
        return metadata

    def shapes(self) -> dict[str, torch.Size]:
        """Key to shape of every tensor.

        Raises:
            As `read_metadata`.
        """
        items = self.read_metadata().state_dict_metadata
        return {k: v.size for k, v in items.items() if isinstance(v, TensorStorageMetadata)}


class _IndexUnpickler(pickle.Unpickler):
    """Unpickles the dataclasses of an index, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """A class that an index may name.

        Raises:
            pickle.UnpicklingError: another one.
        """
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) not in _INDEX_CLASSES:
            raise pickle.UnpicklingError(f"the index names {module}.{name}, which it may not")
        return super().find_class(module, name)
