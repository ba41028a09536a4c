# The attestation policy of a switch between GPUs, as Casemate ships it.
#
# The evidence is genuine before any policy is asked. What the rules of its room and of the appraisal say
# of it stands in `input.casemate` (docs/how-to/policies.md); the values of the device itself in `input.nvidia`
# and so on. The numbers are those of AR4SI: 2 to 31 affirm, 32 to 95 warn, 96 and above contraindicate, 0 says nothing.
package policy

import rego.v1

found := input.casemate

# Rules that compare what was measured. Without one nobody compared anything, and nothing is claimed.
measured contains held if {
	some rule, held in found.rules
	some prefix in ["measurement.", "reference.", "policy.measurement."]
	startswith(rule, prefix)
}

default executables := 0

executables := 33 if false in measured
else := 3 if count(measured) > 0

default configuration := 36

configuration := 2 if {
	every rule, held in found.rules {
		held == true
	}
}

# A development platform proves nothing about its hardware, whatever it shows.
default hardware := 32

hardware := 2 if {
	found.platform_class == "production"
	not found.rules["platform.tcb"] == false
}

default runtime_opaque := 32

runtime_opaque := 2 if found.memory_encrypted == true

trust_claims := {
	"instance-identity": 0,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": hardware,
	"runtime-opaque": runtime_opaque,
	"storage-opaque": 0,
	"sourced-data": 0,
}
