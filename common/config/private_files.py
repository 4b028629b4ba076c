"""Restricts access to files by the setting TIDAL_UMASK: sets the umask, and changes the mode of existing folders.

Every entry point calls `apply_umask` before it writes files. Files whose path a user chooses are an exception: an
export and `tidal train --out` follow the umask of the shell.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from common.config.settings import Settings, read_settings
from common.errors import ConfigError

PRIVATE = 0o077


def apply_umask(settings: Settings | None = None) -> None:
    """Set the umask of this process, which its children inherit.

    Without `settings`, the settings are read from the environment. If they are invalid, the umask is 077, and the error
    is reported by the code that reads the settings later.
    """
    try:
        wanted = int((settings or read_settings()).umask, 8)
    except ConfigError:
        wanted = PRIVATE
    os.umask(wanted)


def close_folder(folder: Path, umask: int) -> bool:
    """Remove the permissions in `umask` from a folder. Return whether the folder had any of them.

    Folders of other users, folders with the sticky bit such as /tmp, the home folder and / are not changed.
    """
    try:
        found = folder.stat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
            return False
        if folder.resolve() in (Path.home().resolve(), Path("/")):
            return False
        mode = stat.S_IMODE(found.st_mode)
        if not mode & umask:
            return False
        folder.chmod(mode & ~umask)
    except (OSError, RuntimeError):  # Path.home raises RuntimeError if there is no home folder
        return False
    return True
