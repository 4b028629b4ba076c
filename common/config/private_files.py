"""Files that only their owner reads: the umask of our processes, and folders of earlier versions closed afterwards.

Every entry point calls `apply_umask` before it writes anything. Leaves out what a person asked for by name: an export
or `tidal train --out` follows the umask of their shell.
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

    Without settings those of the environment count; where they are wrong it is 077, and their reader says so.
    """
    try:
        wanted = int((settings or read_settings()).umask, 8)
    except ConfigError:
        wanted = PRIVATE
    os.umask(wanted)


def close_folder(folder: Path, umask: int) -> bool:
    """Take the rights of `umask` from a folder of ours; whether it had any of them.

    A folder of somebody else, a shared one such as /tmp (it has the sticky bit) and a home folder stay as they are.
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
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False
    return True
