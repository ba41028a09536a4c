"""Rego in child processes: a compiler that lives for one policy, evaluators that are supervised and replaced."""

from casemate.drivers.rego.askers import Crowded
from casemate.drivers.rego.compile import Compiled, compile_policy
from casemate.drivers.rego.pool import Answer, Broken, Compiling, Pool

__all__ = ["Answer", "Broken", "Compiled", "Compiling", "Crowded", "Pool", "compile_policy"]
