"""Where resources live and how changes are announced.

In: resources. Out: stored resources with revisions, commits in order. Never: what a resource means.
"""
