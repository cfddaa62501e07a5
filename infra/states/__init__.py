"""The state machine's definition in the Amazon States Language, phase by phase."""
