"""Saves and restores all rows of Tidal's tables, the experiments' files and the uploaded datasets in one verified file.

`create_backup` can run while the services run; `restore_backup` requires that all services are stopped. Rows are copied
over a database connection, which needs no client programs such as pg_dump and works with every PostgreSQL that Tidal
supports. A backup does not contain token caches, secrets, corpora that are not uploaded datasets, or the contents of
Redis, which can be lost without harm. docs/decisions/0047 gives the reasons.
"""

from common.backup.archive import BackupManifest, read_manifest
from common.backup.create import BackupResult, create_backup
from common.backup.restore import RestoreResult, restore_backup

__all__ = ["BackupManifest", "BackupResult", "RestoreResult", "create_backup", "read_manifest", "restore_backup"]
