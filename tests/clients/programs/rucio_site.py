"""A real Rucio on SQLite: its core to make a data lake, its conveyor daemons to move files in it, turn by turn."""

from __future__ import annotations

import threading
from typing import Any

from calls import answer_calls
from rucio.common.logging import setup_logging
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account_limit, did, distance, replica, rse, rule, scope
from rucio.daemons.conveyor import finisher, poller, preparer, receiver, submitter
from rucio.db.sqla import models
from rucio.db.sqla.constants import DatabaseOperationType, DIDType, RequestState
from rucio.db.sqla.session import db_session
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
from rucio.rse import rsemanager

ROOT = InternalAccount("root")
SCOPE = InternalScope("tests")
FOR_EVERYTHING = {
    "lan": {"read": 1, "write": 1, "delete": 1},
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
}
RULE_ATTRIBUTES = ("state", "error", "locks_ok_cnt", "locks_replicating_cnt", "locks_stuck_cnt")
receivers: list[threading.Thread] = []


def bootstrap() -> None:
    """The database, its root account, and a scope."""
    build_database()
    create_base_vo()
    create_root_account()
    with db_session(DatabaseOperationType.WRITE) as session:
        scope.add_scope(SCOPE, ROOT, session=session)


def add_rse(name: str, scheme: str, host: str, port: int, fts: str, prefix: str, impl: str = "webdav") -> str:
    """A storage that third-party copies may use; its distance to all others is 1."""
    rse_id = rse.add_rse(name)
    protocol = {
        "scheme": scheme,
        "hostname": host,
        "port": port,
        "prefix": prefix,
        "impl": f"rucio.rse.protocols.{impl}.Default",
        "domains": FOR_EVERYTHING,
        "extended_attributes": None,
    }
    rse.add_protocol(rse_id, protocol)
    rse.add_rse_attribute(rse_id, "fts", fts)
    with db_session(DatabaseOperationType.WRITE) as session:
        account_limit.set_local_account_limit(ROOT, rse_id, -1, session=session)
    for other in rse.list_rses():
        if other["id"] != rse_id:
            distance.add_distance(rse_id, other["id"], distance=1, bidirectional=True)
    return rse_id


def set_distance(source: str, destination: str, value: int) -> None:
    """Make a link longer, so that Rucio likes it less."""
    distance.update_distances(rse.get_rse_id(source), rse.get_rse_id(destination), distance=value)


def cut_link(source: str, destination: str) -> None:
    """Let there be no direct way between two storages."""
    distance.delete_distances(rse.get_rse_id(source), rse.get_rse_id(destination))


def set_attribute(name: str, key: str, value: Any) -> None:
    """An attribute of a storage."""
    rse.add_rse_attribute(rse.get_rse_id(name), key, value)


def set_fts(name: str, fts: str) -> None:
    """Point a storage at another service."""
    rse_id = rse.get_rse_id(name)
    rse.del_rse_attribute(rse_id, "fts")
    rse.add_rse_attribute(rse_id, "fts", fts)


def path_of(rse_name: str, name: str) -> str:
    """Where a storage has a file: its URL."""
    settings = rsemanager.get_rse_info(rse_name)
    protocol = rsemanager.create_protocol(settings, "write", domain="wan")
    (url,) = protocol.lfns2pfns([{"scope": "tests", "name": name}]).values()
    return url


def add_file(rse_name: str, name: str, size_bytes: int, adler32: str) -> None:
    """Believe that a file is at a storage."""
    replica.add_replica(rse.get_rse_id(rse_name), SCOPE, name, size_bytes, ROOT, adler32=adler32)


def add_rule(name: str, expression: str, copies: int) -> str:
    """Ask for copies of a file; the rule's id."""
    (rule_id,) = rule.add_rule(
        dids=[{"scope": SCOPE, "name": name}],
        account=ROOT,
        copies=copies,
        rse_expression=expression,
        grouping="NONE",
        weight=None,
        lifetime=None,
        locked=False,
        subscription_id=None,
    )
    return rule_id


def add_dataset(dataset: str, names: list[str]) -> None:
    """A dataset of files that are known."""
    did.add_did(SCOPE, dataset, DIDType.DATASET, ROOT)
    did.attach_dids(SCOPE, dataset, [{"scope": SCOPE, "name": name} for name in names], ROOT)


def delete_rule(rule_id: str) -> None:
    """Want a rule no more: its transfers are cancelled."""
    rule.delete_rule(rule_id)


def set_priority(rule_id: str, priority: int) -> None:
    """Change the priority of a rule, and so of its transfers."""
    rule.update_rule(rule_id, {"priority": priority})


def look(rule_id: str) -> dict[str, Any]:
    """The rule and the requests that there are for it."""
    seen = rule.get_rule(rule_id)
    with db_session(DatabaseOperationType.READ) as session:
        requests = [
            {
                "id": row.id,
                "state": row.state.name,
                "job_id": row.external_id,
                "host": row.external_host,
                "dest": row.dest_rse_id,
                "retries": row.retry_count,
                "error": row.err_msg,
            }
            for row in session.query(models.Request).filter_by(rule_id=rule_id)
        ]
        past = [
            {"id": row.id, "state": row.state.name, "job_id": row.external_id, "error": row.err_msg}
            for row in session.query(models.RequestHistory).filter_by(rule_id=rule_id)
        ]
    shown = {name: getattr(seen[name], "name", seen[name]) for name in RULE_ATTRIBUTES}
    return {**shown, "requests": requests, "past": past}


def forget_submission(request_id: str) -> None:
    """As after a crash between the submission and the note of it: the request is to be submitted again."""
    with db_session(DatabaseOperationType.WRITE) as session:
        row = session.query(models.Request).filter_by(id=request_id).one()
        row.state, row.external_id = RequestState.QUEUED, None


def set_job(request_id: str, job_id: str) -> None:
    """Believe that a request was submitted as another job."""
    with db_session(DatabaseOperationType.WRITE) as session:
        session.query(models.Request).filter_by(id=request_id).one().external_id = job_id


# The daemons proper instead of their `run`: that first waits 10 s for other instances, of which there are none.


def submit() -> None:
    """Turns of the daemons that come before a transfer."""
    preparer.preparer(once=True, sleep_time=1, bulk=100, partition_wait_time=0)
    # Fewer files in a job than a way has hops, and Rucio submits the first hops of it alone.
    submitter.submitter(once=True, group_bulk=20, partition_wait_time=0)


def settle(*, poll: bool = True) -> None:
    """Turns of the daemons that come after it."""
    if poll:
        poller.poller(once=True, older_than=0, partition_wait_time=0)
    finisher.finisher(once=True, partition_wait_time=0)


def start_receiver() -> None:
    """The daemon that listens to the broker, until the process ends."""
    thread = threading.Thread(target=receiver.receiver, kwargs={"id_": 0, "total_threads": 1}, daemon=True)
    thread.start()
    receivers.append(thread)


if __name__ == "__main__":
    setup_logging()
    answer_calls(
        {
            "bootstrap": bootstrap,
            "add_rse": add_rse,
            "set_distance": set_distance,
            "cut_link": cut_link,
            "set_attribute": set_attribute,
            "set_fts": set_fts,
            "set_job": set_job,
            "path_of": path_of,
            "add_file": add_file,
            "add_rule": add_rule,
            "add_dataset": add_dataset,
            "delete_rule": delete_rule,
            "set_priority": set_priority,
            "look": look,
            "forget_submission": forget_submission,
            "submit": submit,
            "settle": settle,
            "start_receiver": start_receiver,
        }
    )
