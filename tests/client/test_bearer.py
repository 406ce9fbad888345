"""Tokens: where they come from, how long they are kept, and that nothing shows them."""

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest
from credit_client.bearer import FetchedToken, FileToken, FixedToken, check_token
from credit_client.errors import TokenUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st

SECRET = "s3cret"


def _jwt(claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.signature"


class Fetcher:
    """Returns numbered tokens, each when it is released."""

    def __init__(self) -> None:
        self.fetches = 0
        self.released = asyncio.Event()
        self.asked = asyncio.Event()

    async def __call__(self) -> str:
        self.fetches += 1
        number = self.fetches
        self.asked.set()
        await self.released.wait()
        return f"token-{number}"


@pytest.fixture
async def fetcher() -> Fetcher:
    return Fetcher()


@pytest.mark.parametrize("text", ["", "a b", "a\r\nb", "a\n", "tökén", "a\x00", "a\x7f", "\ta"])
def test_a_token_that_no_header_may_hold_is_rejected_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        FixedToken(text)
    assert len(text) < 2 or text not in str(caught.value)


@settings(deadline=None)  # the machine may be slow
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_all_visible_ascii_is_a_token(text: str) -> None:
    assert check_token(text) == text


async def test_a_fixed_token_stays_the_same_when_it_is_rejected() -> None:
    fixed = FixedToken(SECRET)
    fixed.reject(SECRET)
    assert await fixed.token() == SECRET
    assert SECRET not in repr(fixed)


async def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    source = FileToken(path)
    assert [await source.token(), await source.token()] == ["first", "first"]
    # As Kubernetes swaps a mounted secret: another file under the same name.
    (tmp_path / "new").write_text("other\n")
    (tmp_path / "new").rename(path)
    assert await source.token() == "other"


async def test_a_rejected_token_is_read_again_though_its_file_seems_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    before = path.stat()
    source = FileToken(path)
    await source.token()
    path.write_text("other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await source.token() == "first"
    source.reject("first")
    assert await source.token() == "other"


@pytest.mark.parametrize("content", [b"", b"a s3cret", b"s3cret\xff", None])
async def test_a_file_without_a_token_is_named_and_not_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "the-file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenUnavailable, match="the-file") as caught:
        await FileToken(path).token()
    assert SECRET not in str(caught.value)


async def test_calls_at_the_same_time_share_one_fetch_and_later_ones_its_token(
    fetcher: Fetcher,
) -> None:
    source = FetchedToken(fetcher)
    waiting = [asyncio.create_task(source.token()) for _ in range(10)]
    await fetcher.asked.wait()
    fetcher.released.set()
    assert await asyncio.gather(*waiting) == ["token-1"] * 10
    assert await source.token() == "token-1"
    assert fetcher.fetches == 1


async def test_a_call_that_ends_does_not_disturb_the_fetch_of_the_others(fetcher: Fetcher) -> None:
    source = FetchedToken(fetcher)
    first, second = (asyncio.create_task(source.token()) for _ in range(2))
    await fetcher.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fetcher.released.set()
    assert await second == "token-1"


async def test_a_rejected_token_is_replaced_by_one_fetch(fetcher: Fetcher) -> None:
    fetcher.released.set()
    source = FetchedToken(fetcher)
    assert await source.token() == "token-1"
    source.reject("token-1")
    assert await source.token() == "token-2"
    source.reject("token-1")  # of a call that was rejected together with the first
    assert await source.token() == "token-2"


async def test_a_function_that_is_not_async_will_do() -> None:
    assert await FetchedToken(lambda: SECRET).token() == SECRET


async def test_the_error_of_the_function_is_named_and_the_next_call_asks_again() -> None:
    errors = [OSError("the issuer is away")]

    async def fetch() -> str:
        if errors:
            raise errors.pop()
        return SECRET

    source = FetchedToken(fetch)
    with pytest.raises(TokenUnavailable, match="OSError: the issuer is away") as caught:
        await source.token()
    assert isinstance(caught.value.__cause__, OSError)
    assert await source.token() == SECRET


@pytest.mark.parametrize("fetched", ["s3cret\n", b"s3cret", None])
async def test_what_is_no_token_is_refused_and_not_shown(fetched: object) -> None:
    async def fetch() -> str:
        return fetched  # type: ignore[return-value]  # an app's mistake

    with pytest.raises(TokenUnavailable, match="visible ASCII") as caught:
        await FetchedToken(fetch).token()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_closing_ends_a_fetch(fetcher: Fetcher) -> None:
    source = FetchedToken(fetcher)
    waiting = asyncio.create_task(source.token())
    await fetcher.asked.wait()
    source.close()
    with pytest.raises(TokenUnavailable, match="cancelled"):
        await waiting


@pytest.mark.parametrize(
    ("lifetime_seconds", "kept_seconds"), [(3600, 3570), (100, 90), (10, 9), (-5, None)]
)
async def test_a_jwt_is_replaced_shortly_before_it_expires(
    lifetime_seconds: int, kept_seconds: int | None
) -> None:
    now = 1_000_000.0
    fetches = []

    def fetch() -> str:
        fetches.append(now)
        return _jwt({"exp": now + lifetime_seconds, "n": len(fetches)})

    source = FetchedToken(fetch, now=lambda: now)
    first = await source.token()
    now += 10_000 if kept_seconds is None else kept_seconds - 0.5
    assert await source.token() == first
    if kept_seconds is not None:
        now += 1
        assert await source.token() != first


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b.c",
        "a.é.c".replace("é", "%"),
        "...",
        _jwt([]),
        _jwt({}),
        _jwt({"exp": None}),
        _jwt({"exp": "soon"}),
        _jwt({"exp": [1]}),
        _jwt({"exp": 10**400}),
        "a." + base64.urlsafe_b64encode(b'{"exp": NaN}').decode() + ".c",
        "a." + base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".c",
    ],
)
async def test_a_token_without_an_expiry_is_kept(token: str) -> None:
    fetches = []

    def fetch() -> str:
        fetches.append(1)
        return token

    now = 0.0
    source = FetchedToken(fetch, now=lambda: now)
    await source.token()
    now = 1e12
    assert await source.token() == token
    assert len(fetches) == 1
