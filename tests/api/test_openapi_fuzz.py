"""Whatever is sent, no answer is a fault and none is undocumented (schemathesis)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from service.api.schemas.examples_policy import POLICY_REQUEST
from service.api.schemas.gate import MAX_WAIT_MS
from service.app import create_api
from service.config import Settings
from service.db import tokens
from service.db.engine import Database, open_engine
from service.records import gates, policy_changes
from service.records.wake import Wake
from tests.api.policies import add_repository
from tests.api.world import DB1, WEB1, add_domain, add_host, add_job, add_recovery_point
from tests.databases import migrate, sqlite_url

EXAMPLES = 60
JOB_CALLS = ["get_job", "explain_job", "cancel_job", "retry_job"]
DOMAIN_CALLS = ["get_domain", "preflight_domain", "thaw_domain", "quiesce_domain"]
OTHER_CALLS = ["create_job", "list_jobs", "list_domains", "list_hosts", "forget_host", "list_recovery_points", "get_recovery_point"]
REPOSITORY_CALLS = ["get_repository", "check_repository", "import_repository", "forget_repository"]
FURTHER_CALLS = ["add_repository", "list_repositories", "preview_restore", "preview_retention"]
READ_OF_POLICY = ["preview_policy_on_record", "list_domains_of_policy", "list_runs_of_policy"]
POLICY_CALLS = ["get_policy", "change_policy", "pause_policy", "resume_policy", "remove_policy", *READ_OF_POLICY]
MORE_POLICY_CALLS = ["add_policy", "list_policies", "preview_policy", "apply_policies", "label_domain"]
SERVICE_CALLS = ["health", "readiness", "metrics"]
CALLS = [
    *JOB_CALLS,
    *DOMAIN_CALLS,
    "release_gate",
    *OTHER_CALLS,
    *REPOSITORY_CALLS,
    *FURTHER_CALLS,
    *POLICY_CALLS,
    *MORE_POLICY_CALLS,
    *SERVICE_CALLS,
]
UNKNOWN_TO_SCHEMAS = ("cursor_invalid", "idempotency_mismatch", "policy_invalid")
"""No schema knows which cursors and keys were given out, which repositories there are, and what a cron expression is."""


@dataclass(frozen=True)
class Fuzzed:
    schema: Any
    secret: str
    #: By call: path parameters of what exists.
    paths: dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """The application with something of everything in it."""
    folder = tmp_path_factory.mktemp("fuzz")
    url = sqlite_url(folder / "stillpoint.db")
    migrate(url)
    database = Database(open_engine(url))
    secret, paths = _fill(database)
    application = create_api(Settings(state_dir=folder, host_id="hv1"), database, Wake())
    schema = schemathesis.openapi.from_asgi("/openapi.json", application, headers={"Authorization": f"Bearer {secret}"})
    yield Fuzzed(schema, secret, paths)
    application.state.context.reader.close()
    database.dispose()


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("call", CALLS)
def test_no_fault_and_no_undocumented_answer(call: str, mode: GenerationMode, fuzzed: Fuzzed) -> None:
    operation = fuzzed.schema.find_operation_by_id(call)
    cases = [operation.as_strategy(generation_mode=mode)]
    # Nobody guesses a UUID: some cases are about what is there.
    cases += [operation.as_strategy(generation_mode=mode, path_parameters=real) for real in fuzzed.paths.get(call, [])]

    @given(case=one_of(cases))
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case[Any]) -> None:
        _do_not_wait(case)
        answer = case.call(headers={"Authorization": f"Bearer {fuzzed.secret}"})
        meaning = answer.status_code == 422 and answer.json()["code"] in UNKNOWN_TO_SCHEMAS
        # Well-formed by the schema, and wrong all the same.
        excluded: list[Any] = [positive_data_acceptance] if meaning else []
        # An empty list has no form in a query: what was to be wrong about the request never left.
        if set(case.query or {}) - {name for name, _ in parse_qsl(urlsplit(str(answer.request.url)).query, keep_blank_values=True)}:
            excluded.append(negative_data_rejection)
        # Nor has an object, such as {"limit": 9} for the field `limit`: what leaves is `limit=9`.
        if any(isinstance(value, dict) for value in (case.query or {}).values()):
            excluded.append(negative_data_rejection)
        case.validate_response(answer, excluded_checks=excluded)

    try:
        ask()
    except Unsatisfiable:
        # A call without anything in it that could be wrong.
        assert mode is GenerationMode.NEGATIVE


def _do_not_wait(case: schemathesis.Case[Any]) -> None:
    """Nobody opens the gate."""
    if case.operation.label.endswith("/quiesce") and isinstance(case.body, dict):
        wait_ms = case.body.get("wait_ms", 1)
        if isinstance(wait_ms, int | float) and not isinstance(wait_ms, bool) and 0 < wait_ms <= MAX_WAIT_MS and wait_ms == int(wait_ms):
            case.body["wait_ms"] = 0


def _fill(database: Database) -> tuple[str, dict[str, list[dict[str, str]]]]:
    with database.write() as session:
        add_host(session, "hv1")
        add_domain(session, "db1", DB1)
        add_domain(session, "web1", WEB1)
        jobs, points = [], []
        for state in ("queued", "running", "interrupted", "succeeded", "failed", "cancelled"):
            domain_id = WEB1 if state == "running" else DB1
            jobs.append({"job_id": add_job(session, state=state, labels={"plan": "nightly"}, domain_id=domain_id)})
            points.append({"recovery_point_id": add_recovery_point(session, jobs[-1]["job_id"])})
        secret = tokens.create(session, "fuzz").secret
        gates.add(session, jobs[0]["job_id"], "spg_unknown", 8_000)
        add_repository(session, "nas")
        policy_changes.create(session, POLICY_REQUEST)
    domains = [{"domain": "db1"}, {"domain": WEB1}]
    policies = {call: [{"policy": POLICY_REQUEST["name"]}] for call in POLICY_CALLS}
    return secret, policies | dict.fromkeys(JOB_CALLS, jobs) | dict.fromkeys(DOMAIN_CALLS, domains) | {
        "get_recovery_point": points,
        "release_gate": [{"domain": WEB1, **job} for job in jobs] + [{"domain": DB1, **jobs[0]}],
    }
