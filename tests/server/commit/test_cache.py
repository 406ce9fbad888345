"""The cache keeps what was used last and never grows past its size."""

from credit_server.commit.cache import Cache


def test_the_entry_that_was_not_used_for_longest_is_forgotten() -> None:
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_a_cache_of_size_0_keeps_nothing() -> None:
    cache: Cache[str, int] = Cache(0)
    cache.put("a", 1)
    assert cache.get("a") is None


def test_dropping_what_is_not_there_is_no_error() -> None:
    cache: Cache[str, int] = Cache(1)
    cache.drop("a")
    cache.put("a", 1)
    cache.drop("a")
    assert cache.get("a") is None
