"""SnapStart and hostile code. The launcher, the zygote and the environments are real; the test is the control plane and
the dispatcher. Who writes a snapshot is a process of the function's own: each test has the function's code do with that
what it can. What is shown of each attack, and where (files without a folder are here):

What two environments of one snapshot could have of each other (L: tests/integration/test_launcher_snapshots)
    memory, events              test_copies: test_memory_and_events_of_a_copy_are_its_own
    variables, tokens, streams  test_copies: test_variables_of_a_copy_are_its_own
    /tmp                        test_copies: test_files_of_a_copy_are_its_own
    processes                   test_copies: test_processes_of_a_copy_are_its_own
    namespaces, users, the file that they are filled from
                                L: test_siblings_do_not_see_each_other
    random numbers              L: test_what_must_differ_differs

What the one that is copied could do (S: tests/integration/test_launcher_snapshot_limits)
    clones, namespaces, calls   test_maker: test_the_one_that_is_copied_may_do_what_any_may
    kept descriptors, mappings  test_maker: test_what_is_hidden_from_the_check_is_not_in_copies
                                L: test_what_cannot_be_copied_is_an_ordinary_environment
    read its pipe back          test_maker: test_its_own_pipe_read_back
    garbage on its channel      tests/security/escape/test_channel: test_one_that_is_copied
    garbage for a snapshot      test_forged: all; L: test_what_is_no_snapshot_is_not_used
    too much                    test_maker: test_refusals_without_end
                                S: test_one_that_is_larger_than_all_may_be_is_refused
    none at all                 L: test_a_maker_that_says_nothing_is_followed_by_another
    stand still, drip           test_maker: test_it_never_finishes_its_hook
                                S: test_it_has_a_limit_of_time, test_who_writes_slowly_is_counted_too
    fork                        test_maker: test_it_forks_and_all_write, test_a_child_of_it_keeps_the_pipe
    exhaust memory              test_maker: test_it_takes_all_memory
    be frozen                   test_maker: test_it_is_frozen_meanwhile
    be frozen or killed while it writes
                                test_maker: test_it_is_killed_while_it_writes
    be killed, and copies as they begin, under load
                                tests/crash/test_snapshot_kills; parked environments: tests/crash/test_pool_kills
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.conftest import need_root
from tests.integration.launcher_stage import Played, played
from tests.integration.snapshot_stage import Stage


@pytest.fixture(scope="module")
def shared() -> Iterator[Played]:
    need_root()
    with played(zygotes=1) as stage:
        yield stage


numbers = itertools.count(1, 2)


@pytest.fixture
def stage(shared: Played) -> Iterator[Stage]:
    stage = Stage(shared, next(numbers))
    launcher = shared.pid
    yield stage
    stage.close()
    assert shared.pid == launcher
    assert shared.process is not None
    assert shared.process.poll() is None
