"""Owners: alive, gone, or elsewhere, whatever happens to process ids and clocks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from assay.owner import Owner


def test_this_process_is_alive_and_survives_its_text() -> None:
    here = Owner.here()
    assert here.life == "alive"
    assert Owner.parse(here.text()) == here == Owner.of(here.pid)


def test_a_process_is_gone_when_it_died_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.of(child.pid)
    assert owner is not None
    assert owner.life == "alive"
    child.kill()
    child.wait()
    assert owner.life == "gone"
    assert Owner.of(child.pid) is None


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "print(flush=True)"], stdout=subprocess.PIPE)
    owner = Owner.of(child.pid)
    assert owner is not None
    assert child.stdout is not None
    child.stdout.read()
    while owner.life == "alive":
        pass
    assert owner.life == "gone"
    child.wait()


def test_a_used_up_id_is_not_the_old_process() -> None:
    here = Owner.here()
    assert replace(here, started=here.started - 1).life == "gone"


def test_other_machines_and_containers_are_elsewhere() -> None:
    here = Owner.here()
    assert replace(here, machine="another").life == "elsewhere"
    assert replace(here, namespace="1").life == "elsewhere"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"machine": "a"}', '{"pid": null}'])
def test_what_is_no_owner_is_none(text: str) -> None:
    assert Owner.parse(text) is None
