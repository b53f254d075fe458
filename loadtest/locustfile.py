"""What locust loads, in every process: who is an Envoy, who plays the scenario.

In: `--plan FILE`, which `python -m loadtest` writes. Out: an outcome file, from the process that plays the scenario.
Never: a scenario; those are in `scenarios/`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import gevent
from loadtest.crew import Crew, listen
from loadtest.envoy_user import EnvoyUser, tls_of
from loadtest.plan import Plan
from loadtest.scenarios import SCENARIOS
from loadtest.stage import Stage
from loadtest.worker import Worker
from locust import events, runners
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

__all__ = ["EnvoyUser"]

_LOG = logging.getLogger("loadtest")
_LATE_EACH_S = 0.02
_PAGE_S = 60.0
"""How long the page stays when the scenario is over."""

# A process that is busy with thousands of Envoys sends no heartbeat for some seconds. Locust would take it for lost and
# have the others start its Envoys too. One that really ends is noticed by the crew, which gets no answer of it.
runners.HEARTBEAT_LIVENESS = runners.MASTER_HEARTBEAT_TIMEOUT = 600


@events.init_command_line_parser.add_listener
def _add_arguments(parser: Any) -> None:
    parser.add_argument(
        "--plan", default="", help="the file that python -m loadtest has written", include_in_web_ui=False
    )


@events.init.add_listener
def _set_up(environment: Any, **_: object) -> None:
    runner = environment.runner
    plan = Plan.load(Path(environment.parsed_options.plan))
    if isinstance(runner, LocalRunner | WorkerRunner):
        _be_envoys(environment, plan)
    if isinstance(runner, LocalRunner | MasterRunner):
        crew = Crew(runner)
        played = gevent.event.Event()

        def begin(**_: object) -> None:
            # The page could start a second run, of which nobody would write a report.
            if not played.is_set():
                played.set()
                gevent.spawn(_play, environment, plan, crew)

        environment.events.test_start.add_listener(begin)


def _be_envoys(environment: Any, plan: Plan) -> None:
    def fire(name: str, milliseconds: float, size: int) -> None:
        environment.events.request.fire(
            request_type="xDS",
            name=name,
            response_time=milliseconds,
            response_length=size,
            exception=None,
            context={},
        )

    worker = Worker(plan.users, plan.workers, fire)
    EnvoyUser.plan, EnvoyUser.worker, EnvoyUser.tls = plan, worker, tls_of(plan)

    def know_index(**_: object) -> None:
        # The master has said it by then.
        worker.index = environment.runner.worker_index

    environment.events.test_start.add_listener(know_index)
    listen(environment.runner, worker.answer)
    gevent.spawn(_feel, worker)


def _feel(worker: Worker) -> None:
    """Note how late this process is with what it has to do."""
    while True:
        due = time.monotonic() + _LATE_EACH_S
        gevent.sleep(_LATE_EACH_S)
        worker.news.late.append(time.monotonic() - due)


def _play(environment: Any, plan: Plan, crew: Crew) -> None:
    stage = Stage(plan, crew)
    try:
        stage.play(SCENARIOS[plan.scenario])
        stage.save()
        environment.process_exit_code = 0
    except BaseException as error:
        environment.process_exit_code = 1
        _LOG.exception("%s did not come to its end: %s", plan.scenario, error)
    finally:
        if environment.web_ui is not None:
            # Its own --autoquit counts from --run-time alone.
            environment.runner.stop()
            gevent.sleep(_PAGE_S)
            environment.web_ui.stop()
        environment.runner.quit()
