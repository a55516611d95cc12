"""Notifications to the people behind NOTIFY_URLS, sent with Apprise."""

from __future__ import annotations

from copier_mlops import UnreachableError
from copier_mlops.settings import Settings


def notify(settings: Settings, *, title: str, body: str) -> bool:
    """Send a notification.

    Args:
        settings: Settings with the recipients.
        title: First line.
        body: Text below it.

    Returns:
        Whether it was sent; False if NOTIFY_URLS is not set.

    Raises:
        UnreachableError: If an address is not valid, or a recipient was not reached.
    """
    urls = settings.notify_urls.get_secret_value().split()
    if not urls:
        return False
    import apprise  # takes long to import, and most commands send nothing

    messenger = apprise.Apprise()
    if not messenger.add([*urls]) or not messenger.notify(title=title, body=body):
        raise UnreachableError("a notice could not be sent; look at NOTIFY_URLS in .env")
    return True
