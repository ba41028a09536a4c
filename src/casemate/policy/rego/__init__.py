"""Rego policies: what they are given, how their compiled plans are evaluated, and how their answers are read.

`plan` evaluates OPA's intermediate representation (IR), which a compiler in a child process made; nothing here starts a
process. `builtins` are the functions, `values` Rego's data model, `inputs` and `results` the two ends of an evaluation,
`lint` what can be said of a policy's text.
"""
