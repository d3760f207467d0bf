"""Networks of other frameworks in memory, one module a framework."""
