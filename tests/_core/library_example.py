"""A control plane of somebody else, in twenty lines: who is bound by which policy, and who must be told of a change."""

from kumafast import SelectorSet, SnapshotDigest, TagIndex, TagSelector, TagSet, changed_snapshots, digest

proxies = TagIndex([(1, TagSet({"app": "web", "env": "prod"})), (2, TagSet({"app": "db", "env": "prod"}))])
policies = SelectorSet([(10, TagSelector({"env": "prod"})), (11, TagSelector({"app": "web", "env": "*"}))])

# A proxy connects: its policies, most specific last.
bound = sorted(policies.match(TagSet({"app": "web", "env": "prod"})), key=lambda policy: policy[1])
assert [policy for policy, rank in bound] == [10, 11]

# A policy moves from web to db: only these proxies need new configuration.
assert list(proxies.affected(TagSelector({"app": "web"}), TagSelector({"app": "db"}))) == [1, 2]

# All at once, without the GIL: row i of `rows` is who policy selector_ids[i] binds.
rows = proxies.match_all(policies)
assert rows.ids[rows.offsets[0] : rows.offsets[1]].tolist() == [1, 2]

# What did really change? Compare 16 bytes for each proxy, not its resources.
web, db = SnapshotDigest([("listener", digest(b"v1").hex())]), SnapshotDigest()
before = [web.value, db.value]
web.replace("listener", digest(b"v1").hex(), digest(b"v2").hex())
assert changed_snapshots(before, [web.value, db.value]) == [0]
