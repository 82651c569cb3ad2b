# SPDX-License-Identifier: Apache-2.0
"""Removes what nobody needs: files of ended jobs, broken deletions, jobs that nobody takes up.

Gateways and trainers call this whenever they like, several of them at once too.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.common.job_records import JobRecords
from services.common.jobs import JobState
from services.common.storage import AvatarStore, JobFolders

logger = logging.getLogger(__name__)


def remove_leftovers(records: JobRecords, folders: JobFolders, store: AvatarStore) -> None:
    """Removes what is left of deleted and finished jobs, broken deletions and broken uploads.

    Args:
        records: The job records.
        folders: Files of jobs.
        store: Finished avatars.
    """
    records.forget_deleted()
    present = folders.list()  # before the records: an upload has its record first
    deleted, known = records.deleted(), set(records.ids())
    done = {job.job_id for job in records.list() if job.state is JobState.SUCCEEDED}
    for job_id in present:
        if job_id in deleted | done:
            logger.info("removing files that no job needs any more", extra={"job_id": job_id})
            _delete(folders, job_id)
        elif job_id not in known:
            # Another Redis, or one that lost its data: nobody asked to delete these.
            logger.warning(
                "files of a job that Redis does not know; unless somebody moves them away, or Redis"
                " knows no job at all, a gateway removes them so many days after their last change"
                " as STYLEAVATAR_GATEWAY_UNFINISHED_JOBS_DAYS says",
                extra={"folder": str(folders.folder(job_id))},
            )
    for avatar_id in records.unwanted_avatars().intersection(store.list()):
        logger.info("removing an avatar that was deleted", extra={"avatar_id": avatar_id})
        try:
            store.delete(avatar_id)
        except OSError as error:
            extra = {"avatar_id": avatar_id, "reason": str(error)}
            logger.error("a deleted avatar cannot be removed", extra=extra)
    folders.sweep()
    store.sweep()


def remove_expired(records: JobRecords, folders: JobFolders, kept: timedelta) -> None:
    """Removes jobs that failed or were canceled, and folders of unknown jobs, when they are old.

    A Redis that knows no job at all may have lost its data: then no folder is removed.

    Args:
        records: The job records.
        folders: Files of jobs.
        kept: How long a job is kept after its end, a folder after its last change.
    """
    present = folders.list()  # before the records: an upload has its record first
    oldest = datetime.now(UTC) - kept
    known = set(records.ids())
    jobs = records.list()
    ended = {job.job_id for job in jobs if records.delete_ended(job.job_id, before=oldest)}
    for job_id in present:
        is_unknown = bool(known) and job_id not in known
        if job_id in ended or (is_unknown and _is_older(folders.folder(job_id), oldest)):
            logger.info("job and its files have expired", extra={"job_id": job_id})
            _delete(folders, job_id)


def _delete(folders: JobFolders, job_id: str) -> None:
    """Removes the files of a job; those that cannot be removed must not keep the others."""
    try:
        folders.delete(job_id)
    except OSError as error:
        folder = str(folders.folder(job_id))
        logger.error("files cannot be removed", extra={"folder": folder, "reason": str(error)})


def _is_older(folder: Path, moment: datetime) -> bool:
    """Says whether nothing in a folder was changed since a moment."""
    try:
        times = [path.lstat().st_mtime for path in (folder, *folder.rglob("*"))]
    except FileNotFoundError:  # somebody is at it, or removes it too
        return False
    return max(times) < moment.timestamp()
