"""`python -m assay.services.ray_head start ...`: Ray's own program, without what would open ports or fill the disk.

Ray has no setting to leave out its client server, which needs another port and which nothing here uses.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from assay.workers.ray_private import start_head_without_client_server

SESSIONS = 3  # of which Ray's logs are kept


def main() -> None:
    forget_sessions(Path(sys.argv[sys.argv.index("--temp-dir") + 1]))
    start_head_without_client_server()


def forget_sessions(folder: Path) -> None:
    """Remove Ray's logs of all but the last sessions; Ray never does."""
    for session in sorted(folder.glob("session_2*"))[: -(SESSIONS - 1)]:
        shutil.rmtree(session, ignore_errors=True)


if __name__ == "__main__":
    main()
