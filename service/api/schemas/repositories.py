"""The documents of repositories."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import examples_repository as examples
from service.api.schemas.fields import Answer, Filter, Flag, HostName, Name, Request, Transfers, WholeNumber
from service.model.repository import RepositoryState

ONE_GIB = 1 << 30
RepositoryPath = Annotated[
    str,
    Field(
        min_length=2,
        max_length=4096,
        pattern=r"^/[^\x00]+$",
        description="Absolute path of the folder, the same on every host that works in it. It may be new, empty, or a repository already.",
    ),
]
KeyReference = Annotated[
    str,
    Field(
        max_length=4096,
        pattern=r"^(file:/|command:)[^\x00-\x1f\x7f]+$",
        description="Where the key is, for a repository whose disks are encrypted: `file:/path`, or `command:program arguments`, which "
        "prints the key. The worker starts only programs that its setting `STILLPOINT_KEY_COMMANDS` names by their absolute paths. "
        "The key itself is never stored. Left out: not encrypted.",
    ),
]


class RepositoryRequest(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.REPOSITORY_REQUEST]})

    name: Name
    path: RepositoryPath
    host: HostName | None = Field(default=None, description="The host whose worker looks at the folder. Left out: the only host.")
    key: KeyReference | None = None
    max_transfers: Transfers | None = Field(
        default=None, description="Backups and restores at once, over all hosts. Left out: each host has its own limit only."
    )
    reserve_bytes: WholeNumber = Field(default=ONE_GIB, ge=0, le=2**50, description="Free space that a backup leaves.")


class RepositoryFilter(Filter):
    pass


class ForgetChoice(Request):
    forget_points: Flag = Field(default=False, description="Take its points off the list, too. Their files stay.")


class RepositoryAnswer(Answer):
    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.REPOSITORY]})

    id: str = Field(
        description="As the repository's own file says, once a worker has read it. The id of the registration is understood, too."
    )
    name: str
    path: str
    host: str
    key: str | None = Field(description="Where the key is. Null: not encrypted.")
    max_transfers: int | None
    reserve_bytes: int
    created_at: str
    state: RepositoryState = Field(description="What the worker of the host last saw.")
    stale: bool = Field(description="The last look is so long ago that the state may be another one now.")
    error: dict[str, Any] | None = Field(description="What was wrong at the last look.")
    looked_at: str | None
    free_bytes: int | None
    total_bytes: int | None
    format_version: int | None
    points: int = Field(description="Recovery points on record.")
    check_asked_at: str | None = Field(description="A caller wants a look, and the worker has not looked since.")
    import_asked_at: str | None = Field(description="A caller wants an import, and the worker has not done it yet.")
    imported_at: str | None
    import_result: dict[str, Any] | None
    verification: dict[str, Any] | None = Field(description="The budget of verification by plan. Null: nothing is verified by plan.")
    links: dict[str, str]


class RepositoryPage(BaseModel):
    items: list[RepositoryAnswer]
    next_cursor: str | None


class ForgottenRepository(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [examples.FORGOTTEN_REPOSITORY]})

    id: str
    name: str
    points: int = Field(description="How many points were taken off the list.")
