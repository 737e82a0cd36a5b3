"""A checkpoint: config, index, shards; tensors are found by name and read lazily, byte range by byte range.

safetensors only: pickled weights (`.bin`, `.pt`) can run code when opened and are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tdmoe.checkpoint import json_text
from tdmoe.checkpoint.files import Files, LocalFiles
from tdmoe.checkpoint.safetensors_header import Header, TensorEntry, read_header
from tdmoe.problems import InputError, MissingShards, WeightError, shown

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SAMPLED, SAMPLED_BYTES = 16, 16_384  # tensors of a kind, and of each
ADAPTER = "adapter_config.json"  # of LoRA weights, which transformers applies to the model beside them
SERIES = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")
MAX_JSON_BYTES = 200_000_000  # an index of 100,000 tensors takes 10 MB


class Checkpoint:
    """An open checkpoint, given as a folder or as the files of one. Use as a context manager."""

    def __init__(self, files: Files | Path) -> None:
        """Read config and index; InputError when either is missing, damaged or unsafe."""
        self.files: Files = LocalFiles(files) if isinstance(files, Path) else files
        self._names = self.files.names()
        self._headers: dict[str, Header] = {}
        self._stamps: dict[str, tuple[int, int] | None] = {}  # of the shards with a header, before it was read
        self.notes: list[str] = []  # what is odd about it, but does not stop a run
        self.has_index = SINGLE in self._names or INDEX in self._names
        if not self.has_index:
            self._refuse_other_formats()
        self.config = self._object(CONFIG)
        self._shard_of = self._find_shards()
        if ADAPTER in self._names:
            self.notes.append(
                f"{ADAPTER}: a LoRA adapter lies beside the weights; it is left out, what runs the model refuses it"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; the checkpoint can be read again afterwards."""
        self.files.close()

    def __contains__(self, name: str) -> bool:
        return name in self._shard_of

    def names(self) -> Iterable[str]:
        """Names of all tensors, in the order of the index."""
        return self._shard_of.keys()

    def refusal(self, why: str, remedy: str) -> InputError:
        """The refusal of this checkpoint."""
        return InputError("checkpoint", self.files.name, why, remedy)

    def refuse_adapter(self) -> None:
        """InputError where a LoRA adapter lies beside the weights: running or copying the model would mix the two."""
        if ADAPTER in self._names:
            raise self.refusal(f"holds a LoRA adapter ({ADAPTER})", "merge it, or give the folder without it")

    def nbytes(self) -> int:
        """Size of all shards that are there."""
        return sum(self.files.size(shard) for shard in set(self._shard_of.values()) if shard in self._names)

    def entry(self, name: str) -> TensorEntry:
        """Place of tensor `name`; opens its shard's header. InputError when it is missing or the index lies."""
        if name not in self._shard_of:
            raise self.refusal(f"tensor {shown(name, 120)} is missing from the checkpoint", self.remedy())
        header = self._header(self._shard_of[name])
        if name not in header.tensors:
            raise InputError(
                INDEX,
                why=f"says that tensor {shown(name, 120)} is in {header.file}, but that file does not hold it",
                remedy="the index does not belong to these shards, download it again",
            )
        return header.tensors[name]

    def entries(self, names: Sequence[str]) -> tuple[TensorEntry, ...]:
        """`entry` of each; where shards are missing, all of them are named."""
        missing = sorted({self._shard_of[n] for n in names if n in self} - set(self._names))
        if missing:
            raise MissingShards(missing, self.files.name)
        return tuple(self.entry(name) for name in names)

    def read_into(self, entry: TensorEntry, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `entry` from byte `start` (relative to the tensor) on; thread-safe."""
        assert start + buffer.nbytes <= entry.nbytes
        try:
            self.files.read(entry.file, entry.offset + start, buffer)
        except EOFError as error:
            raise WeightError(
                f"{entry.file}: ends inside tensor {shown(entry.name, 120)}; the file changed during the run"
            ) from error
        except OSError as error:
            raise WeightError(
                f"{entry.file}: reading tensor {shown(entry.name, 120)} failed ({error.strerror or error})"
            ) from error

    def will_need(self, entries: Iterable[TensorEntry]) -> None:
        """A hint that these tensors are read next, so that reading starts before they are asked for."""
        for entry in entries:
            self.files.will_need(entry.file, entry.offset, entry.nbytes)

    def remedy(self) -> str:
        """The way out when a tensor is missing; names a shard of the set that lies on disk but not in the index."""
        known = set(self._shard_of.values())
        series = {re.sub(r"-\d+-of-", "-*-of-", shard) for shard in known}
        strays = sorted(
            name
            for name in self._names
            if name.endswith(".safetensors") and name not in known and re.sub(r"-\d+-of-", "-*-of-", name) in series
        )
        if strays:
            return f"{strays[0]} is on disk but {INDEX} does not name it, download the index again"
        return "the checkpoint is incomplete or of another model, download it again"

    def structure_fingerprint(self) -> str:
        """Identity of the config and of which shard holds what; the same whichever layers are asked for."""
        return _digest({"config": self.config, "shards": self._shard_of})

    def weights_fingerprint(self, entries: Sequence[TensorEntry]) -> str:
        """Identity of these tensors: size and header of their shards, and what `Files.identity` knows of the data."""
        spans: dict[str, list[tuple[int, int]]] = {}
        for entry in entries:
            spans.setdefault(entry.file, []).append((entry.offset, entry.nbytes))
        shards = []
        for file, of_file in spans.items():
            header = self._header(file)
            shards.append([file, header.size, header.sha256, self.files.identity(file, of_file)])
        return _digest(shards)

    def sampled_fingerprint(self, names: Iterable[str]) -> str:
        """Identity of what these tensors hold, wherever they lie: of the first bytes of a few of every kind of name."""
        kinds: dict[str, list[str]] = {}
        for name in sorted(names):
            kinds.setdefault(re.sub(r"\d+", "#", name), []).append(name)
        found = []
        for of_kind in kinds.values():
            for entry in map(self.entry, of_kind[:: -(-len(of_kind) // SAMPLED)]):
                start = bytearray(min(entry.nbytes, SAMPLED_BYTES))
                if start:
                    self.read_into(entry, 0, memoryview(start))
                found.append([entry.name, entry.dtype, list(entry.shape), hashlib.sha256(start).hexdigest()])
        return _digest(found)

    def changed(self) -> list[str]:
        """Shards of another size or time than when their headers were read."""
        return [shard for shard, stamp in self._stamps.items() if stamp and self.files.stamp(shard) != stamp]

    def _header(self, shard: str) -> Header:
        if shard not in self._headers:
            if shard not in self._names:
                raise MissingShards([shard], self.files.name)
            self._stamps[shard] = self.files.stamp(shard)
            self._headers[shard] = read_header(self.files, shard)
        return self._headers[shard]

    def _find_shards(self) -> dict[str, str]:
        """{tensor: shard file name}; a single file wins over an index, as in transformers."""
        if SINGLE in self._names:
            return dict.fromkeys(self._header(SINGLE).tensors, SINGLE)
        if INDEX in self._names:
            index = self._object(INDEX)
            weight_map, self.has_index = index.get("weight_map"), isinstance(index.get("metadata"), dict)
            if not isinstance(weight_map, dict) or not weight_map:
                raise InputError(INDEX, why="field 'weight_map' is missing or empty", remedy="download the index again")
            for name, shard in weight_map.items():
                _check_shard_name(name, shard)
            return weight_map
        if shards := self._series():
            return self._merged(shards)
        if pickles := [name for name in self._names if name.endswith(PICKLES)]:
            raise self.refusal(
                f"holds only pickled weights ({pickles[0]})",
                "pickles can run code and are not read. Convert with transformers: "
                "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)",
            )
        raise self.refusal(f"has neither {SINGLE} nor {INDEX}", "give a safetensors checkpoint")

    def _series(self) -> list[str]:
        """The files of the one whole series NAME-00001-of-0000N that is there; none where there is no such series."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in sorted(self._names):
            if match := SERIES.fullmatch(name):
                found.setdefault((match[1], match[3]), []).append(name)
        if len(found) != 1:
            return []
        ((_, count), shards), *_ = found.items()
        numbers = [int(SERIES.fullmatch(shard)[2]) for shard in shards]  # type: ignore[index]
        if numbers != list(range(1, int(count) + 1)):
            there = f"{len(numbers)} of its {count[:9]} shards"
            raise self.refusal(f"has no {INDEX}, and {there}", "download it again")
        return shards

    def _merged(self, shards: list[str]) -> dict[str, str]:
        """{tensor: shard} by the shards' own headers; InputError where two of them hold the same tensor."""
        found: dict[str, str] = {}
        for shard in shards:
            for name in self._header(shard).tensors:
                if name in found:
                    raise self.refusal(
                        f"has no {INDEX}, and tensor {shown(name, 120)} is in {found[name]} and in {shard}",
                        "download the checkpoint again",
                    )
                found[name] = shard
        self.notes.append(f"{self.files.name} has no {INDEX}: the headers of its {len(shards)} shards are used instead")
        return found

    def _refuse_other_formats(self) -> None:
        """InputError that says what a folder without such weights holds, where that is known."""
        if any(name.endswith(".safetensors") and not name.startswith("adapter") for name in self._names):
            return
        if ADAPTER in self._names:
            base = shown(self._object(ADAPTER).get("base_model_name_or_path"))
            raise self.refusal(
                f"is a LoRA adapter of base {base}, not a model", "give the base, or what merging the two gives"
            )
        if gguf := [name for name in self._names if name.endswith(".gguf")]:
            raise self.refusal(
                f"holds GGUF ({gguf[0]}), which is not read", "give the safetensors checkpoint it was made from"
            )

    def _object(self, name: str) -> dict:  # type: ignore[type-arg]
        """A JSON file that holds an object."""
        if name not in self._names:
            raise self.refusal(f"has no {name}", "give a Hugging Face checkpoint")
        try:
            if (size := self.files.size(name)) > MAX_JSON_BYTES:
                raise InputError(
                    name, why=f"{size:,} bytes, the limit is {MAX_JSON_BYTES:,}", remedy="download it again"
                )
            self.files.read(name, 0, memoryview(raw := bytearray(size)))
            value = json_text.parse(bytes(raw))
        except InputError:
            raise
        except (OSError, EOFError, ValueError) as error:
            raise InputError(name, why=f"cannot be read as JSON ({error})", remedy="download it again") from error
        if not isinstance(value, dict):
            raise InputError(
                name, why=f"holds a JSON {type(value).__name__}, not an object", remedy="download it again"
            )
        return value


def _check_shard_name(tensor: str, shard: object) -> None:
    """Shard names come from a downloaded file: only a plain name may be opened (no path, nothing but safetensors)."""
    if not isinstance(shard, str) or not shard.endswith(".safetensors") or set(shard) & set("/\\\0") or shard[0] == ".":
        raise InputError(
            INDEX,
            why=f"tensor {shown(tensor, 120)} is said to be in {shown(shard)}",
            remedy="a shard must be a plain file name ending in .safetensors, without a path",
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
