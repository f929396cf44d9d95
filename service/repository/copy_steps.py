"""The steps of the hand that copy, compare, merge, restore, verify and heal disks."""

from service.repository.comparing import compare_disk
from service.repository.copying import copy_disk
from service.repository.healing import heal_file, heal_notes
from service.repository.joining import measure_merge, merge_disk
from service.repository.parent import check_parent
from service.repository.restoring import restore_disk
from service.repository.source_disk import inspect_source
from service.repository.verifying import verify_point

STEPS = {
    "inspect_source": inspect_source,
    "copy_disk": copy_disk,
    "check_parent": check_parent,
    "compare_disk": compare_disk,
    "measure_merge": measure_merge,
    "merge_disk": merge_disk,
    "restore_disk": restore_disk,
    "verify_point": verify_point,
    "heal_file": heal_file,
    "heal_notes": heal_notes,
}
