from typing import final

from typing_extensions import disjoint_base

@disjoint_base
class Waiting: ...

@disjoint_base
class Channel(Waiting): ...

@final
class Poller:
    def __new__(cls, most: int, seconds: float, /) -> Poller: ...
    @property
    def longest(self) -> int: ...
