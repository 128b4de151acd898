"""Serving: nothing open to others without a password, and the server told the same twice."""

import os
import signal

import pytest
import yaml

from alpacafarm_core.errors import BadInput
from flows import hosting
from flows.automating import AGAIN, GPU, SILENT, TOLD, automations, count_of, declare
from flows.hosting import addresses, refuse_exposure, settle
from flows.logs import heed_level
from flows.serving import Serving, serve, terminable
from tests.test_cli import complaint, typed


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_on_loopback_no_password_is_needed(host):
    refuse_exposure(host, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "farm.example.org", "192.168.1.2"])
def test_an_address_that_others_reach_needs_a_password(host):
    with pytest.raises(BadInput, match="PREFECT_SERVER_API_AUTH_STRING=user:password"):
        refuse_exposure(host, "")
    refuse_exposure(host, "farm:secret")


@pytest.mark.parametrize("secret", ["farm", "farm:", ":secret"])
def test_a_password_without_both_parts_is_refused_and_not_shown(secret):
    with pytest.raises(BadInput, match="is no user:password") as refused:
        refuse_exposure("127.0.0.1", secret)
    assert "secret" not in str(refused.value)


def test_the_command_refuses_an_open_server_before_it_starts_one(store, monkeypatch, capsys):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    monkeypatch.setattr(hosting.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    assert typed("serve", "--with-server", "--host", "0.0.0.0") == 2
    assert "--host 0.0.0.0 can be reached by others" in complaint(capsys)


def test_without_a_server_and_without_an_address_of_one_there_is_a_mend(store, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInput, match="add --with-server"):
        serve(Serving())


@pytest.mark.parametrize("request_to_end", [signal.SIGTERM, signal.SIGHUP])
def test_who_terminates_or_closes_the_terminal_interrupts(request_to_end):
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), request_to_end)
        signal.pause()


def test_without_a_password_only_its_own_pages_may_read_the_server(monkeypatch):
    class Stopped(Exception):
        """The server was to start."""

    def start(*_, env, **__):
        told.append(env.get("PREFECT_SERVER_CORS_ALLOWED_ORIGINS"))
        raise Stopped

    told = []
    monkeypatch.setattr(hosting.subprocess, "Popen", start)
    monkeypatch.setattr(hosting, "answers", lambda _: False)
    for environment in ({}, {"PREFECT_SERVER_API_AUTH_STRING": "farm:secret"}):
        monkeypatch.setattr(hosting.os, "environ", environment)
        with pytest.raises(Stopped), hosting.server("127.8.8.8", 80):
            pass
    own = ("127.0.0.1", "localhost", "[::1]", "127.8.8.8")
    assert told == [",".join(f"http://{name}:80" for name in own), None]


def test_browsers_are_sent_to_a_name_that_they_can_reach(monkeypatch):
    monkeypatch.setattr(hosting.socket, "gethostname", lambda: "farm-1")
    assert addresses("127.0.0.1", 4200) == ("http://127.0.0.1:4200",) * 2
    assert addresses("0.0.0.0", 80) == ("http://127.0.0.1:80", "http://farm-1:80")
    assert addresses("::1", 80) == ("http://[::1]:80",) * 2
    assert addresses("farm.example.org", 80) == ("http://farm.example.org:80",) * 2


def test_what_the_environment_says_stands_and_the_password_is_handed_on():
    settled = settle({"PREFECT_SERVER_API_AUTH_STRING": "farm:secret", "DO_NOT_TRACK": "0"})
    assert settled["PREFECT_API_AUTH_STRING"] == "farm:secret" and "DO_NOT_TRACK" not in settled
    assert settled["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")
    assert settled["PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"] == "events,flow_runs"
    days = settle({"ALPACAFARM_KEEP_RUNS": "2"})
    assert days["PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"] == str(2 * 24 * 3600)
    with pytest.raises(BadInput, match="ALPACAFARM_KEEP_RUNS='a week'"):
        settle({"ALPACAFARM_KEEP_RUNS": "a week"})


def test_a_level_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("ALPACAFARM_LOG_LEVEL", "loud")
    with pytest.raises(BadInput, match="'LOUD' is no level; give one of DEBUG, INFO"):
        heed_level()


def test_numbers_of_the_environment_are_checked(monkeypatch):
    assert count_of("ALPACAFARM_SILENCE", 180, 60) == 180
    monkeypatch.setenv("ALPACAFARM_SILENCE", "59")
    with pytest.raises(BadInput, match="whole number of 60 or more"):
        count_of("ALPACAFARM_SILENCE", 180, 60)


def test_a_dead_run_is_found_by_its_silence_and_a_crashed_one_begins_again():
    silent, again = automations(180)
    assert (silent.name, again.name) == (SILENT, AGAIN)
    assert silent.trigger.posture.value == "Proactive" and silent.trigger.within.seconds == 180
    assert {"prefect.flow-run.*", "alpacafarm.run.left"} == silent.trigger.expect
    assert silent.actions[0].state.value == "CRASHED"
    # Only a run that has begun: one whose code cannot be loaded would crash for ever.
    assert again.trigger.after == {"prefect.flow-run.Running"}
    assert again.actions[0].state.value == "SCHEDULED"


def test_declaring_twice_changes_nothing_and_a_persons_switch_is_kept(prefect, monkeypatch):
    from prefect.client.orchestration import get_client

    monkeypatch.setenv("ALPACAFARM_NOTIFY_URL", "https://hooks.example.org/planted-token")

    def held():
        with get_client(sync_client=True) as client:
            return {each.name: each for each in client.read_automations() if each.name in names}

    names = declare(gpus=2).automations
    assert names == (SILENT, AGAIN, TOLD)
    before = held()
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(GPU).limit == 2
        client.pause_automation(before[AGAIN].id)
    declare(gpus=8)
    assert held() == before | {AGAIN: before[AGAIN].model_copy(update={"enabled": False})}
    monkeypatch.setenv("ALPACAFARM_SILENCE", "600")
    declare(gpus=8)
    assert held()[SILENT].trigger.within.seconds == 600
    assert not held()[AGAIN].enabled
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(GPU).limit == 2
        block = client.read_block_document_by_name(
            "alpacafarm-notify", "custom-webhook", include_secrets=False
        )
    assert "planted-token" not in yaml.safe_dump(block.model_dump(mode="json"))
