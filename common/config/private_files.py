"""Makes files readable only by their owner: sets the umask, and restricts folders that earlier versions left open.

Every entry point calls `apply_umask` before it writes anything. Leaves out files whose path a person chooses: an export
and `tidal train --out` follow the umask of the shell.
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

    `settings` defaults to the settings of the environment. If those are invalid, the umask is 077; the code that reads
    them later reports the error.
    """
    try:
        wanted = int((settings or read_settings()).umask, 8)
    except ConfigError:
        wanted = PRIVATE
    os.umask(wanted)


def close_folder(folder: Path, umask: int) -> bool:
    """Remove the permissions in `umask` from a folder, and return whether it had any of them.

    Folders of other users, shared folders such as /tmp (they have the sticky bit), and the home folder are not changed.
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
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return False
    return True
