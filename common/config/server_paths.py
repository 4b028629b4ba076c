"""Where things lie on this machine is nobody's business who asks from elsewhere: folders by name instead of by path.

`ServerPaths(settings).hidden(text)` writes `experiments/<id>/model.pth` for a file of the artifact store and `~`
for the home folder, wherever in a text they stand. Logs and commands of the terminal keep whole paths. Leaves out
paths below no folder that is known here, unless `strangers` asks for those, too.
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
"""An absolute path of two parts or more; what an address such as http://host/path holds is none."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S*")


class ServerPaths:
    """The folders of one process."""

    def __init__(self, settings: Settings) -> None:
        names: dict[str, str] = {}
        for name, folder in _folders(settings):
            for path in {folder.absolute(), _resolved(folder)}:
                if len(path.parts) > 1:  # never the root itself
                    names.setdefault(str(path), name)
        self._names = names
        # The longest first: the artifact store may lie in the home folder.
        alternatives = "|".join(re.escape(path) for path in sorted(names, key=len, reverse=True))
        self._known = re.compile(f"{_BEFORE}({alternatives}){_AFTER}")

    def hidden(self, text: str, *, strangers: bool = False) -> str:
        """The text without paths of this machine; with `strangers` any other absolute path is its last part."""
        text = self._known.sub(lambda found: self._names[found.group(1)], text)
        if strangers and "/" in text:
            addresses = [found.span() for found in _URL.finditer(text)]

            def last_part(found: re.Match[str]) -> str:
                inside = any(start <= found.start() < end for start, end in addresses)
                return found.group() if inside else f"…/{found.group(1)}"

            text = _PATH.sub(last_part, text)
        return text

    def hide_in(self, error: TidalError) -> TidalError:
        """The same error without paths, for a reply. Those of the server's own faults hold whatever a system says."""
        strangers = error.status >= 500
        error.message = self.hidden(error.message, strangers=strangers)
        error.errors = [
            {name: self.hidden(value, strangers=strangers) if isinstance(value, str) else value for name, value in one}
            for one in (finding.items() for finding in error.errors)
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
    except (OSError, RuntimeError):  # no home, or a working directory that was removed
        return


def _resolved(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError):
        return folder.absolute()
