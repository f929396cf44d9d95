"""The sentences in which recovery tells what it saw and did of a job whose worker died. Here they read as one text.

Tests compare with these names, so each sentence can be improved alone. Those about the thaw are in `service.freeze.after_death`.
"""

WINDOW = "the freeze window"
PHASE = "phase {phase}"
WORKER_LOST = "The worker was lost in {place} of attempt {attempt}."
WORKER_GAVE_UP = "The worker gave up in {place} of attempt {attempt}: {why}."
WORKER_DID_NOT_END = "The worker did not come to the end of {place} of attempt {attempt}."
WAITED = "Recovery waited since {since}, for {seconds:.0f} s: {why}"
LAST_ATTEMPT = "This was the last of {attempts} attempts."

MIGRATED = "The domain was migrated to another host."
THAWED_THERE = "The domain runs on host {host} now. Job {job_id} thaws its guest there."
MAY_BE_FROZEN_THERE = "The domain may run on another host, and its guest may still be frozen there: look for the domain."

NOT_JUDGED_YET = "Recovery cannot judge the disks yet: {why}"
NOTHING_MADE = "Nothing was made yet."
AS_THEY_WERE = "The disks are on the files that they were on before the job."
ROLLED_BACK = "The disks are on the files that they were on before the job. The overlays that the job made are removed."
POINT_KEPT = "The disks are on their overlays: the point in time was taken, and is kept as crash-consistent."
MERGED_BY_ANOTHER = (
    "The disks are on their overlays, and another client merges {disks} back. "
    "That writes to the files below, so they are not a recovery point."
)
DEFINITION_BEHIND = (
    "The definition of the next start does not name the overlay of {disks}: "
    "correct it before the domain is shut off, or the data that the guest wrote since then is lost."
)
DEFINITION_AHEAD = "Only the definition of the next start names the overlay of {disks}: correct it before the domain is shut off."
IN_DOUBT = "The disks are partly on their overlays, or on other files. Nothing was deleted."

DISCARD_BEGUN = "The job was discarding the point."
DISCARD_FINISHED = "Recovery completed the discard: the disks are on the files that they were on before the job."
DISCARD_UNFINISHED = "Recovery could not discard the point of {disks}: {why}. Nothing in use was deleted."

NOT_JUDGED_POINT = "The disks are on their overlays, and the point was not judged: it is not copied."
POINT_GONE = "The disks have left the point in time before it was copied."
COPY_CONTINUES = "The disks are on their overlays, and the point is judged: the copy continues, and the guest is not frozen again."
COPY_GIVEN_UP = "The disks are on their overlays, and the copy is not continued."
SEALED_BEFORE = "The point is sealed in the repository."
MERGED_BACK = "The overlays were merged back: the disks are on the files that they were on before the job."

NOT_RECORDED = "The worker died before it could record whether the freeze held."
NOT_JUDGED = "The worker died before it could judge the evidence of the freeze window."

RESTORE_REMOVED = "The new files of the restore were not complete, and are removed. The domain and its disks are as before."
RESTORE_NOT_REMOVED = "The new files of the restore were not complete. These could not be removed: {paths}."
RESTORE_COMPLETED = "The domain is on its restored disks."
RESTORE_TAKEN_BACK = "The restore was taken back: {why}"
RESTORE_FLATTENS = "The domain was started over the repository. The next attempt continues to make its disks whole."
