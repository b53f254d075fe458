"""One policy, one file: what it says, its rules, and what of it a new mesh has. `catalog` finds them."""
