"""What a job is to do, and where in the job folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arbitrage import prompts
from arbitrage.errors import ConfigError, InvalidPrompt
from arbitrage.types import AS_CONFIGURED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbitrage.prompts import Rejected
    from arbitrage.types import Prompt, Routing

_LONGEST = 4096  # characters of a path, as in Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a job is to do. Its prompts are either in files or here.

    Attributes:
        files: in the order in which they are read, relative to the job folder.
        prompts: as they came.
        output: folder of the dataset, relative to the job folder; empty for one of the
            job's name.
        routing: how each prompt is routed.
        budget_usd: what the job may cost; None for no limit of its own.
        max_in_flight: prompts under way at once; 0 for as many as may be.
        limit: rows of the source that are read; None for all.
    """

    files: tuple[str, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    output: str = ""
    routing: Routing = AS_CONFIGURED
    budget_usd: float | None = None
    max_in_flight: int = 0
    limit: int | None = None

    def located(self, root: Path) -> list[Path]:
        """The files, which are there and look like what their names say. Blocks.

        Raises:
            InvalidPrompt: one does not lie in the job folder, or cannot be read.
        """
        found: list[Path] = []
        for index, name in enumerate(self.files):
            field = f"spec.files.paths[{index}]"
            path = confined(root, name, field)
            try:
                if not path.is_file():  # in a folder there may be links that lead out
                    what = "is a folder; name its files" if path.is_dir() else "no such file"
                    raise InvalidPrompt(field, f"{name}: {what}")
                prompts.read([path])
            except (ConfigError, OSError) as error:
                raise InvalidPrompt(field, told(root, str(error))) from error
            found.append(path)
        return found

    def rows(self, files: Sequence[Path]) -> Iterator[Prompt | Rejected]:
        """The prompts, one after another; blocks where they are read.

        Args:
            files: as `located` has found them.
        """
        return prompts.read(files) if files else iter(self.prompts)


def confined(root: Path, name: str, field: str) -> Path:
    """Where a name within a folder leads, links followed. Blocks.

    Args:
        root: the folder.
        name: a path from there on.
        field: what the caller calls it.

    Raises:
        InvalidPrompt: it leads nowhere, or out of the folder.
    """
    if len(name) > _LONGEST:  # each of its folders would be looked for
        raise InvalidPrompt(field, f"is longer than {_LONGEST} characters; no path is")
    if Path(name).is_absolute():
        raise InvalidPrompt(field, f"{name}: is absolute; give it relative to the job folder")
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
        raise InvalidPrompt(field, f"{name!r}: is no path") from None
    if not path.is_relative_to(root.resolve()) or path == root.resolve():
        raise InvalidPrompt(field, f"{name}: leads out of the job folder; name what is in it")
    return path


def told(root: Path, text: str) -> str:
    """A text without where the job folder lies: a client need not know."""
    return text.replace(f"{root.resolve()}/", "")
