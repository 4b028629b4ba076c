"""The audit log: who changed what, from where, with the values before and after the change.

Each change that a request makes writes one entry in its own transaction: no change without an entry, and no entry
without a change. Entries contain names, states and ids, never file contents, prompts or secrets. Jobs have a second
record, their events, which also contain what workers do. The api writes entries with `record_change`; the health
process deletes old ones (TIDAL_AUDIT_DAYS).
"""

from common.audit.log import ACTIONS, delete_old_entries, record_change

__all__ = ["ACTIONS", "delete_old_entries", "record_change"]
