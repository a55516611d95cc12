"""A notification is sent, or an error says that it was not."""

import apprise
import pytest

from copier_mlops import UnreachableError
from copier_mlops._notifications import notify
from copier_mlops.settings import Settings


def test_without_recipients_nothing_is_sent() -> None:
    assert not notify(Settings(), title="title", body="body")


def test_each_recipient_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(apprise.Apprise, "notify", lambda self, **text: sent.append((len(self), text)) or True)
    monkeypatch.setenv("NOTIFY_URLS", "json://127.0.0.1:9 json://127.0.0.1:10")
    assert notify(Settings(), title="title", body="body")
    assert sent == [(2, {"title": "title", "body": "body"})]
    monkeypatch.setattr(apprise.Apprise, "notify", lambda self, **text: False)
    with pytest.raises(UnreachableError, match="NOTIFY_URLS"):
        notify(Settings(), title="title", body="body")
