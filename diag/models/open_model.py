"""A --model opened for commands that run it: checkpoint, tokenizer, token windows, the loaded model, the run folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from diag.inputs.texts import text_notes, text_of
from diag.inputs.windows import token_windows, window_of
from diag.models.device import here
from diag.models.loadable import check_loadable
from diag.models.model import Model, resolve
from diag.models.transformer import load_model, load_tokenizer
from diag.runs.folder import RunFolder, Unit, digest
from diag.runs.manifest import SCHEMA, make_manifest
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import EXPERTS, Architecture, architecture, language_config
from tdmoe.stacks.locate import check_stacks


class OpenModel:
    """Headers are checked at once, weights are read when asked for. Use as a context manager."""

    def __init__(self, model: str, device: str = "auto", revision: str | None = None, *, experts: bool = True) -> None:
        """InputError where there is no such model, or it has no `experts` and has to; a dense one has no `arch`."""
        self.model: Model = resolve(model, revision)
        self.device = here(device)
        self.checkpoint = Checkpoint(self.model.files())
        self._opened = ExitStack()
        self._opened.callback(self.checkpoint.close)
        with self.closing():
            fields = language_config(self.checkpoint.config)
            self.dense = not experts and not any(fields.get(name) for name in EXPERTS)
            if not self.dense:
                self.arch: Architecture = architecture(self.checkpoint.config)
                check_stacks(self.checkpoint, self.arch)
            self.identity = model_identity(self.checkpoint)
            self._notes = [*self.checkpoint.notes, *check_loadable(self.model, self.checkpoint, self.identity)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Whatever is open is closed where a plan cannot be made; a user's context closes it otherwise."""
        try:
            yield
        except BaseException:
            self._opened.close()
            raise

    @property
    def name(self) -> str:
        return self.model.name

    def notes(self) -> list[str]:
        """Notes on what is odd about the model, but does not stop a run."""
        return list(self._notes)

    def notes_on(self, text: str, windows_WT: Tensor, tokens: int) -> list[str]:
        """Notes, then what of --text is read otherwise than it stands there, and whether it is too short."""
        notes, found = [*self._notes, *text_notes(("--text", text))], windows_WT.numel()
        if tokens - found >= windows_WT.shape[1]:
            notes.append(f"--text {text}: holds {found:,} tokens in whole windows, fewer than --tokens {tokens:,}")
        return notes

    def tokenizer(self) -> Any:
        """InputError where it has none, or that of another vocabulary."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        vocabulary = language_config(self.checkpoint.config).get("vocab_size")
        return load_tokenizer(self.model, self.checkpoint.files, vocabulary if isinstance(vocabulary, int) else None)

    def load(self, dtype: str = "auto") -> Any:
        """The transformers model on the device, for inference."""
        return load_model(self.model, self.checkpoint.files, self.device, dtype)

    def run_dtype(self, asked: str) -> str:
        """Type that the model runs in: `asked`, or for auto its own, bfloat16 where that is not one to run in.

        Where config.json does not say it, its own is that of its first tensor.
        """
        if asked != "auto":
            return asked
        own = self.arch.dtype
        if own is None:
            own = {"F32": "float32", "F16": "float16"}.get(
                self.checkpoint.entry(next(iter(self.checkpoint.names()))).dtype
            )
        own = str(own).removeprefix("torch.")
        return own if own in ("float32", "float16") else "bfloat16"

    def windows(self, option: str, text: str, tokens: int, window: int | None) -> Tensor:
        """(W, T) of a built-in text or a file; InputError, naming the `option` that gave it, where there is none."""
        content = text_of(option, text)
        return token_windows(self.tokenizer(), content, tokens, window_of(self.checkpoint.config, window))

    def held_out(self, text: str, calibrated: Iterable[str], tokens: int, window: int | None) -> Tensor:
        """`windows` of --text; InputError where it is one of the texts that something was calibrated on."""
        if text_of("text", text) in {text_of("calibration_text", name) for name in calibrated}:
            raise InputError(f"--text {text}: is the calibration text; give another, as wikitext2 or enwik8")
        return self.windows("text", text, tokens, window)

    def run_folder(
        self,
        command: str,
        identities: Mapping[Unit, Mapping[str, Any]],
        config: Mapping[str, Any],
        *,
        out: Path | None,
        command_line: str,
        tables: Mapping[str, Sequence[str]],
        given: bool = True,
        seed: int = 0,
    ) -> RunFolder[Unit]:
        """The run folder of a command; every job's identity is what is given, the weights and the kind of device.

        `given`: an `out` that is not None was given by --out.
        """
        common = {"model": self.name, "weights": self.identity, "device": self.device.partition(":")[0]}
        whole = {job: {**common, **identity} for job, identity in identities.items()}
        manifest = make_manifest(
            command=command,
            command_line=command_line,
            model=self.name,
            commit=self.checkpoint.files.commit,
            fingerprint=self.checkpoint.structure_fingerprint(),
            config=dict(config),
            seed=seed,
            device=self.device,
        )
        short = digest([SCHEMA, [[job.key, identity] for job, identity in whole.items()]])[:8]
        path = out or Path("runs") / f"{self.name}-{command}-{short}"
        given = given and out is not None
        found = RunFolder(path, manifest, whole, given=given, columns=tables, changed=self.checkpoint.changed)
        self._opened.callback(found.close)
        return found


def model_identity(checkpoint: Checkpoint) -> str:
    """Identity of all weights, from a tensor of every shard: its time and header count too."""
    by_shard = {entry.file: entry for entry in map(checkpoint.entry, checkpoint.names())}
    return checkpoint.weights_fingerprint(list(by_shard.values()))
