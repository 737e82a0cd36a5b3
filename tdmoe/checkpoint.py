"""A checkpoint on disk: config, index, shards; tensors are found by name and read lazily, byte range by byte range.

safetensors only: pickled weights (`.bin`, `.pt`) can run code when opened and are refused. Bytes are read into the
caller's own buffer rather than memory-mapped, so that the memory in use is what was asked for, on network file
systems too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tdmoe.problems import InputError, WeightError
from tdmoe.safetensors_header import Header, TensorEntry, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
OPEN_FILES = 16  # a layer's experts rarely lie in more than three shards
SAMPLES, SAMPLE_BYTES = 128, 4096  # of a stack's data in its fingerprint


class Checkpoint:
    """An open checkpoint folder. Use as a context manager; it holds at most OPEN_FILES file handles."""

    def __init__(self, folder: Path) -> None:
        """Read config and index; InputError when either is missing, damaged or unsafe."""
        self.folder = folder.resolve()
        self.config = _read_object(self.folder, "config.json")
        self._headers: dict[str, Header] = {}
        self._files: OrderedDict[Path, BinaryIO] = OrderedDict()
        self._shard_of = self._find_shards()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all file handles; the checkpoint can be read again afterwards."""
        while self._files:
            self._files.popitem()[1].close()

    def __contains__(self, name: str) -> bool:
        return name in self._shard_of

    def names(self) -> Iterable[str]:
        """Names of all tensors, in the order of the index."""
        return self._shard_of.keys()

    def entry(self, name: str) -> TensorEntry:
        """Where tensor `name` lies; opens its shard's header. InputError when it is missing or the index lies."""
        if name not in self._shard_of:
            raise InputError(f"{self.folder.name}: tensor {name!r} is missing from the checkpoint; {self.remedy()}")
        header = self._header(self._shard_of[name])
        if name not in header.tensors:
            raise InputError(
                f"{INDEX}: says that tensor {name!r} is in {header.path.name}, but that file does not hold it; "
                "the index does not belong to these shards, download it again"
            )
        return header.tensors[name]

    def read_into(self, entry: TensorEntry, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `entry` from byte `start` (relative to the tensor) on."""
        assert start + buffer.nbytes <= entry.nbytes
        target = buffer.cast("B")
        try:
            file = self._open(entry.path)
            file.seek(entry.offset + start)
            while target.nbytes:
                count = file.readinto(target)  # type: ignore[attr-defined]  # raw FileIO
                if not count:
                    raise WeightError(
                        f"{entry.path.name}: ends inside tensor {entry.name!r}; the file changed during the run"
                    )
                target = target[count:]
        except OSError as error:
            raise WeightError(
                f"{entry.path.name}: reading tensor {entry.name!r} failed ({error.strerror or error})"
            ) from error

    def remedy(self) -> str:
        """What to do when a tensor is missing; names a shard of the set that lies on disk but not in the index."""
        known = set(self._shard_of.values())
        series = {re.sub(r"-\d+-of-", "-*-of-", shard) for shard in known}
        strays = sorted(
            p.name
            for p in self.folder.glob("*.safetensors")
            if p.name not in known and re.sub(r"-\d+-of-", "-*-of-", p.name) in series
        )
        if strays:
            return f"{strays[0]} is on disk but {INDEX} does not name it, download the index again"
        return "the checkpoint is incomplete or of another model, download it again"

    def structure_fingerprint(self) -> str:
        """Identity of the config and of which shard holds what; the same whichever layers are asked for."""
        return _digest({"config": self.config, "shards": self._shard_of})

    def weights_fingerprint(self, entries: Sequence[TensorEntry]) -> str:
        """Identity of these tensors: time, size and header of their shards, and up to 512 KiB sampled from their data.

        Hashing all of a 60 GB model would cost as much as using it. An edit in place shows in the file's time;
        should that have been kept, training or merging shows in the samples.
        """
        digest = hashlib.sha256()
        for path in dict.fromkeys(entry.path for entry in entries):
            header = self._header(path.name)
            digest.update(f"{path.name} {path.stat().st_mtime_ns} {header.size} {header.sha256}".encode())
        each = max(1, SAMPLES // len(entries))
        for entry in entries:
            file, span = self._open(entry.path), max(0, entry.nbytes - SAMPLE_BYTES)
            for i in range(each):
                file.seek(entry.offset + span * (2 * i + 1) // (2 * each))
                digest.update(file.read(min(SAMPLE_BYTES, entry.nbytes)))
        return digest.hexdigest()[:16]

    def _header(self, shard: str) -> Header:
        if shard not in self._headers:
            path = self.folder / shard
            if not path.is_file():
                raise InputError(f"{shard}: named in {INDEX} but not in folder {self.folder.name}; download the shard")
            self._headers[shard] = read_header(path)
        return self._headers[shard]

    def _open(self, path: Path) -> BinaryIO:
        if path not in self._files:
            self._files[path] = path.open("rb", buffering=0)  # type: ignore[assignment]
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

    def _find_shards(self) -> dict[str, str]:
        """{tensor: shard file name}; a single file wins over an index, as in transformers."""
        if (self.folder / SINGLE).is_file():
            return dict.fromkeys(self._header(SINGLE).tensors, SINGLE)
        if (self.folder / INDEX).is_file():
            weight_map = _read_object(self.folder, INDEX).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise InputError(f"{INDEX}: field 'weight_map' is missing or empty; download the index again")
            for name, shard in weight_map.items():
                _check_shard_name(name, shard)
            return weight_map
        pickles = sorted(p.name for p in self.folder.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise InputError(
                f"{self.folder}: holds only pickled weights ({pickles[0]}); pickles can run code and are not "
                "read. Convert with transformers: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)"
            )
        raise InputError(f"{self.folder}: has neither {SINGLE} nor {INDEX}; --model needs a safetensors checkpoint")


def _check_shard_name(tensor: str, shard: object) -> None:
    """Shard names come from a downloaded file: only a plain name may be opened (no path, nothing but safetensors)."""
    if not isinstance(shard, str) or not shard.endswith(".safetensors") or set(shard) & set("/\\\0") or shard[0] == ".":
        raise InputError(
            f"{INDEX}: tensor {tensor!r} is said to be in {shard!r}; a shard must be a plain file name "
            "ending in .safetensors, without a path"
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read_object(folder: Path, name: str) -> dict:  # type: ignore[type-arg]
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; --model takes a built-in name, a checkpoint folder or a cached hub id"
        )
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no {name}; --model needs a Hugging Face checkpoint folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: cannot be read as JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{name}: holds a JSON {type(value).__name__}, not an object; download it again")
    return value
