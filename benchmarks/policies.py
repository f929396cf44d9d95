"""Policies: what schedules, the protection of many domains, and previews cost. Each part is a course of its own.

A part takes the databases and the plan, and returns its course with its figures.
"""

from collections.abc import Callable

from benchmarks import databases, policies_preview, policies_protection, policies_schedules
from benchmarks.databases import Databases
from benchmarks.interleaving import Course, Plan
from benchmarks.report import Report

Part = Callable[[Databases, Plan], tuple[Course, dict[str, float]]]
PARTS: tuple[Part, ...] = (policies_schedules.measure, policies_preview.measure, policies_protection.measure)


def measure(plan: Plan) -> Report:
    courses: list[Course] = []
    figures: dict[str, float] = {}
    with databases.opened() as found:
        for part in PARTS:
            course, of_part = part(found, plan)
            courses.append(course)
            figures |= of_part
        versions = {"postgresql": found.postgresql_version()}
    return Report("policies", plan.seed, courses, figures, versions=versions)
