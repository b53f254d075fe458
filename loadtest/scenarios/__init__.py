"""What can be played, by name. A scenario is a function of a stage; what it does is in its module's first sentence."""

from __future__ import annotations

from loadtest.scenarios import policy_storm, reconnect_storm, rollout, soak, steady, zone_failure
from loadtest.stage import Scenario

SCENARIOS: dict[str, Scenario] = {
    "steady": steady.play,
    "rollout": rollout.play,
    "policy-storm": policy_storm.play,
    "reconnect-storm": reconnect_storm.play,
    "zone-failure": zone_failure.play,
    "soak": soak.play,
}
