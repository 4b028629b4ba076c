"""Replaces paths in texts for remote clients, because these texts must not reveal the layout of the server's disks.

`ServerPaths(settings).hidden(text)` replaces the path of each known folder by a short name. A file of the artifact
store becomes `experiments/<id>/model.pth`, and the home folder becomes `~`. With `shorten_unknown`, a path outside the
known folders is shortened to its last part; without this argument, the path stays as it is. Logs and terminal commands
show whole paths.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.config.settings import PROJECT_ROOT, Settings
from common.errors import TidalError

_BEFORE = r"(?<![\w.-])"
_AFTER = r"(?![\w.-])"
_PATH = re.compile(rf"{_BEFORE}/(?:[^\s/'\":;,()\[\]]+/)+([^\s/'\":;,()\[\]]+)")
"""Matches an absolute path of two or more parts. The caller ignores matches inside a URL."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S*")


class ServerPaths:
    """The known folders of a process and the names that replace their paths."""

    def __init__(self, settings: Settings) -> None:
        names: dict[str, str] = {}
        for name, folder in _folders(settings):
            for path in {folder.absolute(), _resolved(folder)}:
                if len(path.parts) > 1:  # do not replace "/" itself
                    names.setdefault(str(path), name)
        self._names = names
        # Match longer paths first, because the artifact store may be inside the home folder.
        alternatives = "|".join(re.escape(path) for path in sorted(names, key=len, reverse=True))
        self._known = re.compile(f"{_BEFORE}({alternatives}){_AFTER}")

    def hidden(self, text: str, *, shorten_unknown: bool = False) -> str:
        """Return `text` with the paths of known folders replaced. `shorten_unknown` shortens all other paths."""
        text = self._known.sub(lambda found: self._names[found.group(1)], text)
        if shorten_unknown and "/" in text:
            addresses = [found.span() for found in _URL.finditer(text)]

            def last_part(found: re.Match[str]) -> str:
                inside = any(start <= found.start() < end for start, end in addresses)
                return found.group() if inside else f"…/{found.group(1)}"

            text = _PATH.sub(last_part, text)
        return text

    def hide_in(self, error: TidalError) -> TidalError:
        """Replace the paths in the texts of an error that is sent to a client, and return the error.

        Unknown paths are shortened in server errors (5xx), which may quote any path from the operating system.
        """
        shorten_unknown = error.status >= 500
        error.message = self.hidden(error.message, shorten_unknown=shorten_unknown)
        error.errors = [
            {
                name: self.hidden(value, shorten_unknown=shorten_unknown) if isinstance(value, str) else value
                for name, value in finding.items()
            }
            for finding in error.errors
        ]
        return error


def _folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    yield "experiments", settings.experiments_dir
    yield "data", settings.data_dir
    yield "configs", settings.config_dir
    yield "tidal", PROJECT_ROOT
    yield "tmp", Path(tempfile.gettempdir())
    yield "python", Path(sys.prefix)
    yield "python", Path(sys.base_prefix)
    try:
        yield "~", Path.home()
        yield ".", Path.cwd()
    except (OSError, RuntimeError):  # raised if there is no home folder, or the working directory was removed
        return


def _resolved(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError):
        return folder.absolute()
