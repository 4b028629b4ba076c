"""Saves and restores all rows of Tidal's tables, all files of the experiments and all datasets in one verified file.

`create_backup` may run beside a working system, `restore_backup` only where nothing else does. Rows are copied through
the database connection, so any PostgreSQL that Tidal can use will do, and no client programs are needed. Leaves out:
Redis (it holds nothing that cannot be lost), corpora that are not uploaded datasets, token caches and secrets.
docs/decisions/0047 gives the reasons.
"""

from common.backup.archive import Manifest, read_manifest
from common.backup.create import Saved, create_backup
from common.backup.restore import Restored, restore_backup

__all__ = ["Manifest", "Restored", "Saved", "create_backup", "read_manifest", "restore_backup"]
