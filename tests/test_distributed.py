"""Several processes: who this one is, and that all of them train the same."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from fewstep import distributed
from fewstep.distributed import Processes, processes, together
from fewstep.errors import FewstepError, NotFinite

WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE='x' is not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK='-1'"),
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({**WHOLE, "RANK": "5"}, "ranks count from 0 to 1"),
        ({**WHOLE, "RANK": "one"}, "RANK='one'"),
        ({**WHOLE, "MASTER_PORT": "70000"}, "MASTER_PORT=70000"),
    ],
)
def test_a_wrong_environment_is_named_at_once(
    wrong: dict[str, str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*WHOLE, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FewstepError, match=hint):
        processes("cpu")


def test_a_first_process_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in {**WHOLE, "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "WAIT", 0.0)
    with pytest.raises(FewstepError, match=f"MASTER_ADDR=127.0.0.1, MASTER_PORT={port}"):
        processes("cpu")


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_names_what_another_trains_otherwise(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: list[dict[str, Any]] = [{"lr": 0.1, "steps": 4}, {"lr": 0.2, "steps": 4}]

    def all_gather(parts: list[Any], thing: Any) -> None:
        assert thing == facts[rank]
        parts[:] = facts

    monkeypatch.setattr(distributed.dist, "all_gather_object", all_gather)
    with pytest.raises(FewstepError, match=r"lr is 0\.2 in process 1 and 0\.1 in process 0"):
        Processes(rank, 2).agree(facts[rank])
    facts[1] = facts[0]
    Processes(rank, 2).agree(facts[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_fails_all_do(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[FewstepError | None] = [None, NotFinite("3 of 8 images")]

    def all_gather(parts: list[Any], thing: Any) -> None:
        assert thing is said[rank]
        parts[:] = said

    def make() -> int:
        if said[rank] is not None:
            raise said[rank]
        return 7

    monkeypatch.setattr(distributed.dist, "all_gather_object", all_gather)
    with pytest.raises(NotFinite, match="3 of 8 images"):
        Processes(rank, 2).as_one(make)
    said[1] = None
    assert Processes(rank, 2).as_one(make) == 7


def test_a_lost_process_is_a_line_and_other_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    with pytest.raises(FewstepError, match="another process of this group has ended"), together():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), together():
        raise RuntimeError("shape mismatch")
