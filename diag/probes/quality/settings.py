"""Settings of `quality`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from diag.declare.forms import NAMES
from diag.declare.model_settings import Compressed
from diag.declare.setting import setting
from diag.declare.target import DTYPES


@dataclass(frozen=True, kw_only=True)
class Settings(Compressed):
    """Perplexity and zero-shot accuracy of the dense model and of compressed ones, with paired differences."""

    ORDER = 50
    ALONE = ()
    texts: tuple[str, ...] = setting(
        ("wikitext2",), "texts for perplexity: built-in ones or files, comma-separated; empty for none", form=NAMES
    )
    windows: int = setting(64, "first windows of each text; 0 for the whole", least=0)
    window: int | None = setting(None, "tokens the model sees at once (default: 2048, or its positions)")
    stride: int | None = setting(None, "tokens from window to window (default: no overlap)")
    join: str = setting(
        "as-is", "the text as it is, or its lines joined by blank lines as papers do", choices=("as-is", "blank-lines")
    )
    bos: str = setting(
        "none", "a beginning-of-sequence token before the text, or at every window's head",
        choices=("none", "text", "window"),
    )  # fmt: skip
    tasks: tuple[str, ...] | None = setting(
        None, "zero-shot tasks of lm-eval, as arc_challenge,hellaswag,openbookqa,piqa,winogrande "
        "(default: these with --task-data, otherwise none)", form=NAMES,
    )  # fmt: skip
    task_data: str | None = setting(
        None, "folder of TASK_val.jsonl.gz files, or hub (default: from the hub)", shared=True
    )
    limit: int | None = setting(None, "documents of a task (default: all)", least=1)
    dtype: str = setting("auto", "dtype that the models run in (auto: their own)", choices=DTYPES)

    def check(self) -> None:
        """InputError where a task is unknown."""
        from diag.probes.quality.zero_shot import check_known

        check_known(self.tasks or ())

    def within(self, said: dict[str, Any]) -> Self:
        """The settings of a part, without tasks where there is no data of them."""
        return replace(super().within(said), tasks=(self.tasks or ()) if said["task_data"] else ())

    def left_out(self, said: dict[str, Any]) -> list[str]:
        """Tasks without data."""
        if not self.tasks or said["task_data"]:
            return []
        return [
            f"{', '.join(self.tasks)}: zero-shot tasks are not measured, they need data; give --task-data FOLDER, or "
            "--task-data hub where there is a network"
        ]
