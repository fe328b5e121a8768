import os, traceback, time
from hypothesis import Phase, given, seed, settings
from test_random_requests import OPTIONS, books, rounds, TENANTS, Books
import pytest
@pytest.mark.timeout(3000)
def test_explore(books):
    out = open(os.environ.get("EXPLORE_OUT", "/tmp/explore_c.txt"), "w")
    n = int(os.environ.get("N", "100"))
    state = {"bad": 0, "slow": []}
    @seed(int(os.environ.get("SOAK_SEED", "1")))
    @settings(max_examples=n // 4, phases=[Phase.generate], **OPTIONS)
    @given(rounds())
    def played(r):
        t = time.monotonic()
        try:
            books.play(r)
        except BaseException as e:
            if not isinstance(e, AssertionError): out.write(traceback.format_exc()[-1500:])
            state["bad"] += 1
            out.write(f"\n##### {type(e).__name__} {str(e)[:2600]}\n"); out.flush()
            time.sleep(1)
        d = time.monotonic() - t
        if d > 3: out.write(f"\n~~~~ slow {d:.1f}: {r}\n"); out.flush()
    t0 = time.monotonic()
    played()
    out.write(f"\nTOTAL {books.requests} worked {books.worked} bad {state['bad']} named {books.named} {time.monotonic()-t0:.1f}s\n")
    print(state["bad"], books.requests)
