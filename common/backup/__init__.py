"""Saves and restores all rows of Tidal's tables, all files of the experiments and all datasets in one verified file.

`create_backup` can run while the system works; `restore_backup` needs all services to be stopped. Rows are copied
through the database connection, so it works with every PostgreSQL that Tidal can use and needs no client programs.
Leaves out Redis, whose contents can be lost without harm, corpora that are not uploaded datasets, token caches and
secrets. docs/decisions/0047 gives the reasons.
"""

from common.backup.archive import BackupManifest, read_manifest
from common.backup.create import BackupResult, create_backup
from common.backup.restore import RestoreResult, restore_backup

__all__ = ["BackupManifest", "BackupResult", "RestoreResult", "create_backup", "read_manifest", "restore_backup"]
