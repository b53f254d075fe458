"""The command `kumafast`.

In: arguments. Out: calls of the HTTP API, tables, exit codes. Never: logic that another front end would need.
"""
