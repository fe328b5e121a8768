"""What a model's tokens cost, and what that makes of a call: exact, in whole numbers, rounded once."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

_NANO_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Price:
    """A price in US dollars: per input token, per output token, per input token that a cache held, and per request.

    ``cached_input`` is None where cached tokens cost what others do. Raises ValueError for an amount that is negative
    or not finite, and TypeError for one that is no `Decimal`: a float is rarely the number that somebody wrote.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    per_request: Decimal = Decimal(0)
    # The amounts as whole numbers of one small unit, of which `_per_nano_usd` make a billionth of a dollar.
    _scaled: tuple[int, int, int, int] = field(init=False, repr=False, compare=False)
    _per_nano_usd: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cached = self.input if self.cached_input is None else self.cached_input
        amounts = (self.input, self.output, cached, self.per_request)
        for amount in amounts:
            if not isinstance(amount, Decimal):
                raise TypeError(f"a price is a Decimal, not {type(amount).__name__}: {amount!r}")
            if not amount.is_finite() or amount < 0:
                raise ValueError(f"a price is a finite number of at least 0, not {amount}")
        digits = max(_NANO_DIGITS, *(-_exponent(amount) for amount in amounts))
        scaled = tuple(_whole(amount, digits) for amount in amounts)
        object.__setattr__(self, "_scaled", scaled)
        object.__setattr__(self, "_per_nano_usd", 10 ** (digits - _NANO_DIGITS))

    def nano_usd(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> int:
        """What one call costs, in billionths of a US dollar, rounded half to even.

        ``cached_tokens`` are those of the prompt's tokens that a cache held; more than ``prompt_tokens`` there cannot
        be, so more are not counted. Reasoning tokens are among ``completion_tokens``. With no cached tokens and the
        most tokens that the answer may have, this is an upper bound of the call's cost, as long as a cached token
        costs no more than another.
        """
        input_, output, cached, request = self._scaled
        hits = min(cached_tokens, prompt_tokens)
        exact = input_ * (prompt_tokens - hits) + cached * hits + output * completion_tokens + request
        whole, rest = divmod(exact, self._per_nano_usd)
        twice = 2 * rest
        round_up = twice > self._per_nano_usd or (twice == self._per_nano_usd and whole % 2 == 1)
        return whole + 1 if round_up else whole


def _exponent(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)  # finite
    return exponent


def _whole(amount: Decimal, digits: int) -> int:
    """``amount`` times 10 to the power of ``digits``, with no context's precision in between."""
    figures = int("".join(map(str, amount.as_tuple().digits)))
    scale: int = 10 ** (_exponent(amount) + digits)
    return figures * scale
