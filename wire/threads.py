"""The task threads, in which the application runs."""

from __future__ import annotations

import logging
from typing import Any

from waitress.task import ThreadedTaskDispatcher

logger = logging.getLogger("packhouse.server")


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """The task threads."""

    logger = logger

    def add_task(self, task: Any) -> None:  # noqa: ANN401 - a Channel, which is above
        """As waitress does, but without a warning in the log for each request that waits for a thread."""
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()
