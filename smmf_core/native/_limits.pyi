ROWS: int  # slots of a table: keys
ROUTERS: int

class LimitTable:
    """What API keys have used, in a file that all Routers map: exact over all of them. Any method
    may be called by any process at any time; ValueError for a slot or a Router out of range."""

    @staticmethod
    def create(fd: int) -> LimitTable:
        """Map the table in a file, or make an empty one where there is none of this version. The
        descriptor stays the caller's. Raises OSError."""
    @staticmethod
    def map(fd: int) -> LimitTable:
        """Map a table. Raises OSError, also for a file that is none."""
    def take(
        self,
        slot: int,
        now_s: int,
        requests_per_minute: int,
        tokens_per_minute: int,
        max_concurrency: int,
        monthly_tokens: int,
        month: int,
        tokens: int,
        router: int,
    ) -> int:
        """Take one request with so many tokens, at `now_s` (Unix seconds); limits of 0 are none.
        0: taken, until `settle`; else nothing is, and which limit it meets: 1 requests, 2 tokens,
        3 concurrency, 4 the month's tokens (`month` is keys.month_of's)."""
    def settle(
        self,
        slot: int,
        now_s: int,
        taken_at_s: int,
        reserved: int,
        used: int,
        month: int,
        router: int,
    ) -> None:
        """The end of a request: it is open no more, and what was reserved becomes what was used. Of
        a window that is over only what goes beyond the reservation counts, in the present one; of
        a month that is over, nothing."""
    def state(
        self, slot: int, now_s: int, month: int | None = None
    ) -> tuple[int, int, int, int, int]:
        """(requests, tokens, open requests, seconds until the minute's windows are over, tokens of
        the month, with what open requests have reserved): of `month`, if one is given, else of the
        last one in which there were any."""
    def windows(self, slot: int, now_s: int) -> tuple[int, int, int, int]:
        """(requests, seconds until their window is over, tokens, seconds); 0 s: there is none."""
    def add_month(self, slot: int, month: int, tokens: int) -> None:
        """So many tokens were used in this month, and are not in the table."""
    def forget(self, slot: int) -> None:
        """Another key is to have it: nothing is used or open."""
    def forget_router(self, router: int) -> None:
        """That Router is dead: its open requests are given back, and what they have reserved of the
        month."""
