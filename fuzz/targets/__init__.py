"""The targets, a file for each kind of input; `CASEMATE_FUZZ_TARGETS` names a folder with more of them."""

import os

__path__ += filter(None, [os.environ.get("CASEMATE_FUZZ_TARGETS", "")])
