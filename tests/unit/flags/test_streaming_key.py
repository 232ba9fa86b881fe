from __future__ import annotations

import pytest

from engine.errors import UserError
from flags.client import SDK_KEY
from flags.launchdarkly import Connection
from flags.streaming import LaunchDarklyFlags

SECRET = "sdk-0123456789-secret"


@pytest.mark.parametrize("key", ["", "   ", "\n"])
def test_a_blank_key_is_refused_and_the_variable_named(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    for given in (key, None):
        monkeypatch.setenv(SDK_KEY, key)
        with pytest.raises(UserError, match="no LaunchDarkly SDK key; set LAUNCHDARKLY_SDK_KEY"):
            LaunchDarklyFlags(given)


def test_a_key_that_is_not_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SDK_KEY, raising=False)
    with pytest.raises(UserError, match="no LaunchDarkly SDK key"):
        LaunchDarklyFlags()


@pytest.mark.parametrize("key", [SECRET + "\n", SECRET + " x", SECRET * 1000])
def test_a_key_that_the_sdk_would_discard_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(UserError, match="this is no LaunchDarkly SDK key") as error:
        LaunchDarklyFlags(key)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("uri", ["127.0.0.1:8030", "ftp://host", "http://", "relay"])
def test_an_address_that_cannot_be_one_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="is no address of a flag service; write http://HOST:PORT"):
        LaunchDarklyFlags(SECRET, stream_uri=uri)


def test_a_refused_client_is_not_in_the_way_of_the_next() -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="this is no LaunchDarkly SDK key"):
            LaunchDarklyFlags("not a key")


def test_the_key_is_in_no_text_about_the_connection() -> None:
    assert SECRET not in repr(Connection(SECRET))
