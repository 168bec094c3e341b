"""Start the WebUI that WEBUI_DIR names as its users do; one of the Forge family is told of the tiny checkpoint first.

python tests/live/live_launch.py FOLDER_FOR_FILES [flags of the WebUI …]
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from live_kind import kind, prepare


def main() -> None:
    webui, files = Path(os.environ["WEBUI_DIR"]).resolve(), Path(sys.argv[1])
    launched = "launch.py" if kind().is_fork else "webui.py"
    sys.argv = [launched, *sys.argv[2:]]
    os.chdir(webui)
    sys.path[0] = str(webui)
    prepare(files, initialised=False)
    runpy.run_path(launched, run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(1, str(Path(__file__).parent))
    main()
