"""Repositories as they are registered."""

from service.errors.base import StillpointError


class RepositoryUnknown(StillpointError):
    code = "repository_not_found"
    title = "There is no such repository"
    detail_template = "No repository has the id or the name {repository}."
    remedy_template = "List the repositories with GET /api/v1/repositories."


class RepositoryTaken(StillpointError):
    code = "repository_taken"
    title = "A repository with this name or path is registered already"
    detail_template = "{repository} is registered as {taken_by}."
    remedy_template = "Use the registered repository, or choose another name and path."


class RepositoryInUse(StillpointError):
    """Facts: `points` and `jobs`, how many there are, and `policies`, the names of those that name the repository."""

    code = "repository_in_use"
    title = "The repository has points, jobs or policies"
    detail_template = "{repository} has {points} points on record and {jobs} jobs that have not ended. Policies that name it: {named}."
    remedy_template = (
        "Wait for the jobs. Let the policies name another repository, or remove them. Say `forget_points` if its points shall be taken off "
        "the list; its files stay."
    )

    @property
    def detail(self) -> str:
        return self.detail_template.format(**self.facts, named=", ".join(self.facts["policies"]) or "none")
