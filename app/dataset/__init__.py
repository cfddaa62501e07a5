"""Between the phases: stored bars -> checked, dense sessions -> causal features -> windows as views."""
