# The resource policy, as Casemate ships it: what the built-in rules allow (an active release of the app that owns the
# secret, listed in the attested manifest, on an allowed platform) is allowed; a guest without a manifest gets nothing.
#
# `input` are the claims of the guest's token, `data` is {"plugin", "resource-path": [repo, type, tag], "query"}.
package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	is_string(input.casemate.app)
	is_string(input.casemate.manifest_digest)
}
